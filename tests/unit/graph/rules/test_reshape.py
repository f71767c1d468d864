"""Reshapes: channels survive merges, splits and moves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from billhook.graph.rules.reshape import blocks
from tests.small_net import Case, Net, case, check, net

X, X2, T = torch.randn(2, 3), torch.randn(2, 3, 4, 4), torch.randn(2, 5, 3)


def conv(run: object, wide: int = 8, left: int = 8, **more: object) -> Net:
    return net(run, a=nn.Conv2d(3, wide, 1), b=nn.Linear(left, 2), **more)  # type: ignore[arg-type]


def fc(run: object, wide: int, left: int, **more: object) -> Net:
    return net(run, a=nn.Linear(3, wide), b=nn.Linear(left, 2), **more)  # type: ignore[arg-type]


def shuffle(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


CASES: dict[str, Case] = {
    "flatten": case(lambda: conv(lambda m, x: m.b(m.a(x).flatten(1)), 4, 64), X2, a=4),
    "flatten pixels first": case(lambda: conv(lambda m, x: m.b(m.a(x).permute(0, 2, 3, 1).flatten(1)), 4, 64), X2, a=4),
    "view with the batch": case(lambda: conv(lambda m, x: m.b(m.a(x).view(x.shape[0], -1)), 4, 64), X2, a=4),
    "pixels as batch": case(lambda: conv(lambda m, x: m.b(m.a(x).permute(0, 2, 3, 1).reshape(-1, m.a.out_channels))), X2, a=8),
    "flattened and back": case(
        lambda: conv(lambda m, x: m.b(m.a(x).flatten(2).unflatten(2, (4, 4)).mean((2, 3)))), X2, a=8
    ),
    "flattened with channels and back": case(
        lambda: conv(lambda m, x: m.b(m.a(x).flatten(1).view(2, -1, 4, 4).mean((2, 3)))), X2, a=8
    ),
    "tokens": case(lambda: conv(lambda m, x: m.b(m.a(x).flatten(2).transpose(1, 2))), X2, a=8),
    "squeeze and unsqueeze": case(
        lambda: conv(lambda m, x: m.b(m.a(x).mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1)[:, None].squeeze(1))), X2, a=8
    ),
    "squeeze everything": case(lambda: conv(lambda m, x: m.b(m.a(x).mean((2, 3), keepdim=True).squeeze())), X2, a=8),
    "movedim": case(lambda: conv(lambda m, x: m.b(m.a(x).movedim(1, -1))), X2, a=8),
    "swapaxes": case(lambda: conv(lambda m, x: m.b(m.a(x).swapaxes(1, 3))), X2, a=8),
    "T": case(lambda: fc(lambda m, x: m.b(m.a(x).T.T), 8, 8), X, a=8),
    "mT": case(lambda: fc(lambda m, x: m.b(m.a(x).mT.mT), 8, 8), T, a=8),
    "unflatten, larger part carries": case(lambda: fc(lambda m, x: m.b(m.a(x).unflatten(1, (2, 6)).amax(1)), 12, 6), X, a=6),
    "unflatten, equal parts": case(lambda: fc(lambda m, x: m.b(m.a(x).view(2, 4, 4).amax(1)), 16, 4), X, a=4),
    "channel shuffle": case(lambda: conv(lambda m, x: m.b(shuffle(m.a(x), 2).mean((2, 3)))), X2, a=4),
    "channel shuffle twice": case(lambda: conv(lambda m, x: m.b(shuffle(shuffle(m.a(x), 2), 2).mean((2, 3)))), X2, a=2),
    "expand": case(lambda: conv(lambda m, x: m.b((m.a(x) * m.a(x).mean((2, 3), keepdim=True).expand(-1, -1, 4, 4)).mean((2, 3)))), X2, a=8),
    "a token is expanded": case(
        lambda: fc(lambda m, x: m.b(torch.cat((m.t.expand(x.shape[0], -1, -1), m.a(x)), 1)), 8, 8, t=nn.Parameter(torch.zeros(1, 1, 8))), T, a=8
    ),
    "one channel is expanded": case(
        lambda: net(lambda m, x: m.b(m.a(m.f(x)).expand(-1, 8) * m.c(x)), f=nn.Linear(3, 6), a=nn.Linear(6, 1), c=nn.Linear(3, 8),
                    b=nn.Linear(8, 2)), X, {"a": "spread over many"}, f=6, c=8,
    ),
    "repeat": case(lambda: fc(lambda m, x: m.b(m.a(x).repeat(1, 3)), 4, 12), X, a=4),
    "tile": case(lambda: fc(lambda m, x: m.b(m.a(x).tile((1, 2))), 4, 8), X, a=4),
    "repeat_interleave": case(lambda: fc(lambda m, x: m.b(m.a(x).repeat_interleave(2, 1)), 4, 8), X, a=4),
    "space to depth": case(
        lambda: net(lambda m, x: m.b(m.a(x).view(2, -1, 2, 2, 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(2, -1, 2, 2)),
                    a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(24, 2, 1)), X2, a=6,
    ),
    "windows": case(
        lambda: net(lambda m, x: m.b(m.a(x).view(2, 2, 2, 2, 2, -1).transpose(2, 3).reshape(8, 4, -1)).mean(1),
                    a=nn.Linear(3, 8), b=nn.Linear(8, 2)), torch.randn(2, 4, 4, 3), a=8,
    ),
    "batch and heads": case(
        lambda: net(lambda m, x: m.b((m.a(x).view(2, 5, 4, 2).transpose(1, 2).reshape(8, 5, 2) @ m.w).view(2, 4, 5, 2)
                                     .transpose(1, 2).flatten(2)),
                    a=nn.Linear(3, 8), w=nn.Parameter(torch.zeros(2, 2)), b=nn.Linear(8, 2)), T, a=4,
    ),
    "nn.Unflatten": case(
        lambda: net(lambda m, x: m.b(m.u(m.a(x))).flatten(1), a=nn.Linear(3, 24), u=nn.Unflatten(1, (6, 2, 2)), b=nn.Conv2d(6, 2, 1)), X, a=6
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_channels_survive(name: str) -> None:
    check(CASES[name])


def test_the_attributes_of_unflatten_follow() -> None:
    small = check(CASES["nn.Unflatten"])
    assert small.u.unflattened_size == (3, 2, 2)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((2, 6), (2, 6), [([0], [0]), ([1], [1])]),
        ((2, 6), (2, 2, 3), [([0], [0]), ([1], [1, 2])]),
        ((2, 2, 3), (2, 6), [([0], [0]), ([1, 2], [1])]),
        ((2, 4, 3), (8, 3), [([0, 1], [0]), ([2], [1])]),
        ((4, 6), (8, 3), [([0, 1], [0, 1])]),
        ((2, 1, 6), (2, 6), [([1], []), ([0], [0]), ([2], [1])]),
        ((2, 6), (2, 1, 6, 1), [([0], [0]), ([1], [2])]),
        ((1,), (), [([0], [])]),
        ((2, 3), (7,), None),
        ((6,), (6, 2), None),
    ],
)
def test_dimensions_are_matched_in_the_finest_blocks(
    before: tuple[int, ...], after: tuple[int, ...], expected: object
) -> None:
    assert blocks(before, after) == expected
