"""Convolutions of every rank, in groups and without, forwards and transposed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from billhook.graph import capture
from tests.oracle import prune_half
from tests.small_net import Case, case, check, net

X1, X2, X3 = torch.randn(2, 3, 9), torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 6, 6)


def chain(middle: nn.Module, wide: int, head: nn.Module, first: nn.Module) -> nn.Module:
    return net(lambda m, x: m.head(m.middle(m.first(x).relu()).relu()), first=first, middle=middle, head=head)


def images(middle: nn.Module, wide: int = 8, out: int = 12) -> nn.Module:
    return chain(middle, wide, nn.Conv2d(out, 2, 1), nn.Conv2d(3, wide, 3, padding=1))


CASES: dict[str, Case] = {
    "1d": case(lambda: chain(nn.Conv1d(8, 12, 3), 8, nn.Conv1d(12, 2, 1), nn.Conv1d(3, 8, 3)), X1, first=8, middle=12),
    "3d": case(lambda: chain(nn.Conv3d(8, 12, 2), 8, nn.Conv3d(12, 2, 1), nn.Conv3d(3, 8, 3)), X3, first=8, middle=12),
    "without bias": case(lambda: images(nn.Conv2d(8, 12, 3, bias=False)), X2, first=8, middle=12),
    "dilated": case(lambda: images(nn.Conv2d(8, 12, 3, dilation=2, stride=2)), X2, first=8, middle=12),
    "same": case(lambda: images(nn.Conv2d(8, 12, 3, padding="same")), X2, first=8, middle=12),
    "circular": case(lambda: images(nn.Conv2d(8, 12, 3, padding=1, padding_mode="circular")), X2, first=8, middle=12),
    "reflect": case(lambda: images(nn.Conv2d(8, 12, 3, padding=1, padding_mode="reflect")), X2, first=8, middle=12),
    "transposed": case(lambda: images(nn.ConvTranspose2d(8, 12, 2, 2)), X2, first=8, middle=12),
    "transposed 1d": case(
        lambda: chain(nn.ConvTranspose1d(8, 12, 2), 8, nn.Conv1d(12, 2, 1), nn.Conv1d(3, 8, 3)), X1, first=8, middle=12
    ),
    "transposed 3d": case(
        lambda: chain(nn.ConvTranspose3d(8, 12, 2), 8, nn.Conv3d(12, 2, 1), nn.Conv3d(3, 8, 3)), X3, first=8, middle=12
    ),
    "depthwise": case(lambda: images(nn.Conv2d(8, 8, 3, groups=8), out=8), X2, first=8),
    "depthwise, two outputs each": case(lambda: images(nn.Conv2d(8, 16, 3, groups=8), out=16), X2, first=8),
    "depthwise transposed": case(lambda: images(nn.ConvTranspose2d(8, 8, 3, groups=8), out=8), X2, first=8),
    "few groups: the same position leaves in each": case(
        lambda: images(nn.Conv2d(8, 12, 3, groups=2)), X2, first=4, middle=6
    ),
    "as many groups as positions": case(lambda: images(nn.Conv2d(16, 16, 1, groups=4), 16, 16), X2, first=4, middle=4),
    "many groups: whole groups leave": case(lambda: images(nn.Conv2d(16, 24, 3, groups=8), 16, 24), X2, first=8),
    "transposed in few groups": case(
        lambda: images(nn.ConvTranspose2d(8, 12, 2, groups=2)), X2, first=4, middle=6
    ),
    "transposed in many groups": case(lambda: images(nn.ConvTranspose2d(16, 16, 2, groups=8), 16, 16), X2, first=8),
    "transposed in few groups, whose outputs must stay": case(
        lambda: net(lambda m, x: m.head(m.norm(m.middle(m.first(x).relu()))), first=nn.Conv2d(3, 8, 3),
                    middle=nn.ConvTranspose2d(8, 12, 2, groups=2), norm=nn.GroupNorm(1, 12), head=nn.Conv2d(12, 2, 1)),
        X2, {"middle": "mixes channels"}, first=4,
    ),
    "in few groups, whose outputs must stay": case(
        lambda: net(lambda m, x: m.head(m.norm(m.middle(m.first(x).relu()))), first=nn.Conv2d(3, 8, 3),
                    middle=nn.Conv2d(8, 12, 2, groups=2), norm=nn.GroupNorm(1, 12), head=nn.Conv2d(12, 2, 1)),
        X2, {"middle": "mixes channels"}, first=4,
    ),
    "without a batch": case(lambda: images(nn.Conv2d(8, 12, 3)), torch.randn(3, 8, 8), first=8, middle=12),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_convolutions(name: str) -> None:
    check(CASES[name])


def test_the_attributes_of_a_layer_follow() -> None:
    small = check(CASES["few groups: the same position leaves in each"])
    assert (small.middle.in_channels, small.middle.out_channels, small.middle.groups) == (4, 6, 2)
    assert small.middle.weight.shape == (6, 2, 3, 3)
    small = check(CASES["many groups: whole groups leave"])
    assert (small.middle.in_channels, small.middle.out_channels, small.middle.groups) == (8, 12, 4)
    small = check(CASES["depthwise, two outputs each"])
    assert (small.middle.in_channels, small.middle.out_channels, small.middle.groups) == (4, 8, 4)
    small = check(CASES["transposed in few groups"])
    assert (small.middle.in_channels, small.middle.out_channels, small.middle.groups) == (4, 6, 2)
    small = check(CASES["transposed"])
    assert (small.middle.in_channels, small.middle.out_channels) == (4, 6)


def test_groups_over_the_users_input_are_held() -> None:
    model = net(
        lambda m, x: m.head(m.first(x).relu()), first=nn.Conv2d(3, 6, 3, groups=3), head=nn.Conv2d(6, 2, 1)
    )
    group = capture(model, X2).groups["first"]
    assert group.frozen is not None
    assert "without channels" in group.frozen.text


def test_a_weight_that_is_made_in_forward() -> None:
    run = lambda m, x: m.head(torch.conv2d(m.first(x), m.weight * m.scale, padding=1).relu())  # noqa: E731
    model = net(
        run, first=nn.Conv2d(3, 8, 1), weight=nn.Parameter(torch.zeros(12, 8, 3, 3)),
        scale=nn.Parameter(torch.zeros(12, 1, 1, 1)), head=nn.Conv2d(12, 2, 1),
    )  # fmt: skip
    small = prune_half(model, X2).small
    assert small.weight.shape == (6, 4, 3, 3)
    assert small.scale.shape == (6, 1, 1, 1)


def test_a_blur_with_a_constant_kernel_holds_its_channels() -> None:
    run = lambda m, x: m.head(torch.conv2d(m.first(x), m.kernel, groups=8))  # noqa: E731
    blur = torch.ones(8, 1, 3, 3) / 9
    model = net(run, first=nn.Conv2d(3, 8, 1), kernel=blur, head=nn.Conv2d(8, 2, 1))
    assert check(case(lambda: model, X2, first=8)).kernel.shape == (4, 1, 3, 3)
