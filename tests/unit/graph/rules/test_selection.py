"""Selection layers: what they pick is a group of its own."""

from __future__ import annotations

import torch
from torch import nn

from billhook.fuse import ChannelSelection
from tests.small_net import case, check, net

X = torch.randn(2, 3, 6, 6)


def test_a_selection_makes_channels_and_holds_those_it_picks_from() -> None:
    check(
        case(
            lambda: net(
                lambda m, x: m.b(m.s(m.a(m.f(x))).relu()) + m.c(m.a(m.f(x))),
                f=nn.Conv2d(3, 6, 1), a=nn.Conv2d(6, 8, 1), s=ChannelSelection(8), b=nn.Conv2d(8, 2, 1), c=nn.Conv2d(8, 2, 1),
            ),
            X, {"a": "channels are picked by a selection layer"}, f=6, **{"s": 8},
        )
    )  # fmt: skip


def test_an_index_that_is_data_makes_no_channels() -> None:
    check(
        case(
            lambda: net(
                lambda m, x: m.b(torch.ops.billhook.select_channels(m.a(m.f(x)), torch.tensor([2, 0]))),
                f=nn.Conv2d(3, 6, 1), a=nn.Conv2d(6, 8, 1), b=nn.Conv2d(2, 2, 1),
            ),
            X, {"a": "channels are picked by a selection layer"}, f=6,
        )
    )  # fmt: skip
