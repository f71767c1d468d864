"""Norms: per channel they follow; across channels they hold, or mix when that is allowed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from billhook.graph import capture
from tests.oracle import prune_half
from tests.small_net import Case, Net, case, check, net

X1, X2, X3 = torch.randn(2, 3, 9), torch.randn(2, 3, 6, 6), torch.randn(2, 3, 4, 4, 4)
T = torch.randn(2, 5, 3)


def images(norm: nn.Module) -> Net:
    run = lambda m, x: m.head(m.norm(m.conv(x)).relu())  # noqa: E731
    return net(run, conv=nn.Conv2d(3, 8, 3), norm=norm, head=nn.Conv2d(8, 2, 1))


def tokens(norm: nn.Module, width: int = 8) -> Net:
    run = lambda m, x: m.head(m.inner(m.norm(m.fc(x))).relu())  # noqa: E731
    return net(run, fc=nn.Linear(3, width), norm=norm, inner=nn.Linear(width, 6), head=nn.Linear(6, 2))


EXACT: dict[str, Case] = {
    "batch norm": case(lambda: images(nn.BatchNorm2d(8)), X2, conv=8),
    "batch norm without affine": case(lambda: images(nn.BatchNorm2d(8, affine=False)), X2, conv=8),
    "batch norm 1d": case(
        lambda: net(lambda m, x: m.b(m.n(m.a(x)).relu()), a=nn.Linear(3, 8), n=nn.BatchNorm1d(8), b=nn.Linear(8, 2)), X1[..., 0], a=8
    ),
    "batch norm 3d": case(
        lambda: net(lambda m, x: m.b(m.n(m.a(x)).relu()), a=nn.Conv3d(3, 8, 2), n=nn.BatchNorm3d(8), b=nn.Conv3d(8, 2, 1)), X3, a=8
    ),
    "instance norm": case(lambda: images(nn.InstanceNorm2d(8, affine=True)), X2, conv=8),
    "instance norm with statistics": case(lambda: images(nn.InstanceNorm2d(8, affine=True, track_running_stats=True)), X2, conv=8),
    "group norm, a channel a group": case(lambda: images(nn.GroupNorm(8, 8)), X2, conv=8),
    "group norm in pairs": case(lambda: images(nn.GroupNorm(4, 8)), X2, conv=4),
    "layer norm over pixels only": case(
        lambda: net(lambda m, x: m.b(m.n(m.a(x)).relu()), a=nn.Conv2d(3, 8, 3), n=nn.LayerNorm((4, 4)), b=nn.Conv2d(8, 2, 1)), X2, a=8
    ),
}  # fmt: skip

MIXING: dict[str, Case] = {
    "layer norm": case(lambda: tokens(nn.LayerNorm(8)), T, {"fc": "layer_norm mixes channels in norm"}, inner=6),
    "layer norm without affine": case(
        lambda: tokens(nn.LayerNorm(8, elementwise_affine=False)), T, {"fc": "layer_norm mixes channels"}, inner=6
    ),
    "rms norm": case(lambda: tokens(nn.RMSNorm(8)), T, {"fc": "rms_norm mixes channels"}, inner=6),
    "group norm in one": case(
        lambda: net(lambda m, x: m.head(m.inner(m.norm(m.conv(x))).relu()), conv=nn.Conv2d(3, 8, 3), norm=nn.GroupNorm(1, 8),
                    inner=nn.Conv2d(8, 6, 1), head=nn.Conv2d(6, 2, 1)),
        X2, {"conv": "group norm with one group mixes channels"}, inner=6,
    ),
    "channels-first layer norm": case(
        lambda: net(lambda m, x: m.head(m.inner(F.layer_norm(m.conv(x).permute(0, 2, 3, 1), (8,), m.w, m.b).permute(0, 3, 1, 2)).relu()),
                    conv=nn.Conv2d(3, 8, 3), w=nn.Parameter(torch.zeros(8)), b=nn.Parameter(torch.zeros(8)),
                    inner=nn.Conv2d(8, 6, 1), head=nn.Conv2d(6, 2, 1)),
        X2, {"conv": "layer_norm mixes channels"}, inner=6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_norms_per_channel_follow(name: str) -> None:
    check(EXACT[name])


@pytest.mark.parametrize("name", MIXING)
def test_norms_across_channels_hold_them(name: str) -> None:
    check(MIXING[name])


@pytest.mark.parametrize("name", MIXING)
def test_norms_across_channels_mix_if_that_is_allowed(name: str) -> None:
    pruned = prune_half(MIXING[name].build(), MIXING[name].inputs, mixing="allow")
    assert {g.size for g in pruned.graph.groups.prunable} == {8, 6}
    (mixed,) = (g for g in pruned.graph.groups.prunable if g.mixed is not None)
    assert mixed.size == 8


def test_the_attributes_of_a_layer_follow() -> None:
    assert check(EXACT["batch norm"]).norm.num_features == 4
    assert check(EXACT["instance norm"]).norm.num_features == 4
    pairs = check(EXACT["group norm in pairs"]).norm
    assert (pairs.num_groups, pairs.num_channels) == (2, 4)
    allowed = prune_half(MIXING["layer norm"].build(), T, mixing="allow").small
    assert allowed.norm.normalized_shape == (4,)
    assert prune_half(MIXING["rms norm"].build(), T, mixing="allow").small.norm.normalized_shape == (4,)


def test_a_weight_norm_lets_its_outputs_go_and_holds_its_inputs() -> None:
    run = lambda m, x: m.head(m.mid(m.first(x).relu()).relu())  # noqa: E731
    model = net(run, first=nn.Conv2d(3, 8, 1), mid=weight_norm(nn.Conv2d(8, 12, 3)), head=nn.Conv2d(12, 2, 1))
    groups = capture(model, X2).groups
    assert groups["first"].frozen is not None
    assert [g.size for g in groups.prunable] == [12]
    small = prune_half(model, X2).small
    assert small.mid.weight.shape == (6, 8, 3, 3)


def test_an_unused_channel_axis_of_statistics_is_no_channel() -> None:
    model = net(lambda m, x: m.head(m.norm(m.fc(x).transpose(1, 2)).mean(2)), fc=nn.Linear(3, 8), norm=nn.BatchNorm1d(8),
                head=nn.Linear(8, 2))  # fmt: skip
    check(case(lambda: model, T, fc=8))
