"""Layers on one input, added or put side by side, become one layer that takes no more MACs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.small_net import net
from tests.unit.fuse.passes.folding import Folded, fold

X1, X2, X3 = torch.randn(2, 4, 9), torch.randn(2, 4, 8, 7), torch.randn(2, 4, 5, 5, 4)
OPERATORS = ("batch_norm", "parallel", "concat")
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
Run = Callable[[Any, Tensor], Tensor]


def folded(run: Run, x: Tensor = X2, **layers: Any) -> Folded:
    made = fold(net(run, **layers), x, *OPERATORS)
    before, after = made.macs()
    assert after <= before
    return made


class RepVGG(nn.Module):
    """The block of the paper: 3×3, 1×1 and the input itself, each with a batch norm."""

    def __init__(self, groups: int = 1, convolution: Any = nn.Conv2d, norm: Any = nn.BatchNorm2d) -> None:
        super().__init__()
        self.dense, self.bn1 = convolution(4, 4, 3, padding=1, groups=groups, bias=False), norm(4)
        self.point, self.bn2 = convolution(4, 4, 1, groups=groups, bias=False), norm(4)
        self.bn3 = norm(4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        return (self.bn1(self.dense(x)) + self.bn2(self.point(x)) + self.bn3(x)).relu()


@pytest.mark.parametrize(
    ("block", "x"),
    [
        (RepVGG(), X2),
        (RepVGG(groups=2), X2),
        (RepVGG(groups=4), X2),
        (RepVGG(1, nn.Conv1d, nn.BatchNorm1d), X1),
        (RepVGG(2, nn.Conv3d, nn.BatchNorm3d), X3),
    ],
    ids=["plain", "groups", "depthwise", "1d", "3d"],
)
def test_a_block_of_repvgg_becomes_one_convolution(block: RepVGG, x: Tensor) -> None:
    made = fold(block, x, *OPERATORS)
    assert made.held[-2:] == [("parallel", "dense"), ("parallel", "dense")]
    assert made.count(*LAYERS) == 1
    kept = made.network.get_submodule("dense")
    assert (kept.groups, kept.weight.shape) == (block.dense.groups, block.dense.weight.shape)
    before, after = made.macs()
    assert after < before


def test_a_block_of_repvgg_with_stride_becomes_one_convolution() -> None:
    layers = dict(dense=nn.Conv2d(4, 6, 3, 2, 1, bias=False), point=nn.Conv2d(4, 6, 1, 2, bias=False))
    norms = dict(n1=nn.BatchNorm2d(6), n2=nn.BatchNorm2d(6))
    made = folded(lambda m, x: (m.n1(m.dense(x)) + m.n2(m.point(x))).relu(), **layers, **norms)
    assert made.count(*LAYERS) == 1


MERGED: dict[str, tuple[Run, dict[str, nn.Module], Tensor]] = {
    "the input itself": (lambda m, x: x + m.a(x), dict(a=nn.Conv2d(4, 4, 3, padding=1)), X2),
    "the input and a 1×1": (lambda m, x: m.a(x) + x, dict(a=nn.Conv2d(4, 4, 1, bias=False)), X2),
    "the input, which others read": (lambda m, x: (m.a(x) + x) * x, dict(a=nn.Conv2d(4, 4, 1)), X2),
    "dilated": (
        lambda m, x: m.a(x) + m.b(x),
        dict(a=nn.Conv2d(4, 5, 3, padding=2, dilation=2), b=nn.Conv2d(4, 5, 1, dilation=3)),
        X2,
    ),
    "1×3 in 3×3": (
        lambda m, x: m.a(x) + m.b(x),
        dict(a=nn.Conv2d(4, 5, (1, 3), padding=(0, 1)), b=nn.Conv2d(4, 5, 3, padding=1)),
        X2,
    ),
    "depthwise in dense": (
        lambda m, x: m.a(x) + m.b(x),
        dict(a=nn.Conv2d(4, 4, 3, padding="same", groups=4), b=nn.Conv2d(4, 4, 3, padding=1)),
        X2,
    ),
    "linear layers": (
        lambda m, x: m.a(x) + m.b(x),
        dict(a=nn.Linear(9, 5), b=nn.Linear(9, 5, bias=False)),
        X1,
    ),
    "a linear layer and its input": (lambda m, x: m.a(x) + x, dict(a=nn.Linear(9, 9)), X1),
    "a linear layer and a norm": (
        lambda m, x: m.a(y := x[..., 0]) + m.b(y),
        dict(a=nn.Linear(4, 4, bias=False), b=nn.BatchNorm1d(4)),
        X1,
    ),
    "three of them": (
        lambda m, x: m.a(x) + (m.b(x) + m.c(x)),
        dict(a=nn.Conv2d(4, 4, 1), b=nn.Conv2d(4, 4, 3, padding=1), c=nn.Conv2d(4, 4, 5, padding=2)),
        X2,
    ),
}


@pytest.mark.parametrize("case", MERGED)
def test_layers_that_are_added_become_one(case: str) -> None:
    run, layers, x = MERGED[case]
    made = folded(run, x, **layers)
    assert {operator for operator, _ in made.held} == {"parallel"}
    assert made.count(*LAYERS) == 1


APART: dict[str, tuple[Run, str]] = {
    "more MACs": (lambda m, x: m.wide(x) + m.high(x), "merged they take 144 MACs per pixel instead of 96"),
    "the input beside a window": (lambda m, x: m.shifted(x) + x, "merged they take"),
    "two grouped": (
        lambda m, x: m.depthwise(x) + m.point(x),
        "they take 144 MACs per pixel instead of 52",
    ),
    "a part of the input": (lambda m, x: m.corner(x) + x[:, :, 1:, 1:], ""),
    "read by others": (
        lambda m, x: (y := m.dense(x)) + m.point(x) + y.relu(),
        "dense is read by others, too",
    ),
    "norm read by others": (lambda m, x: (m.dense(x) + (y := m.norm(x))) * y, "norm is read by others, too"),
    "called twice": (
        lambda m, x: m.dense(x) + m.point(x) + m.point(x.relu()),
        "point is called more than once",
    ),
    "another stride": (lambda m, x: m.dense(x[:, :, :1, :1]) + m.strided(x[:, :, :1, :1]), ""),
    "another input": (lambda m, x: m.dense(x) + m.point(x.relu()), ""),
    "a shortcut around two": (lambda m, x: m.dense(m.point(x).relu()) + x, ""),
    "broadcast": (lambda m, x: m.dense(x) + m.point(x)[:, :, :1, :1], ""),
    "scaled": (lambda m, x: torch.add(m.dense(x), m.point(x), alpha=2), ""),
    "doubled": (lambda m, x: (y := m.dense(x)) + y, ""),
    "one side padded": (lambda m, x: m.uneven(x) + m.point(x), "uneven pads one side more than the other"),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("case", APART)
def test_others_stay_apart(case: str) -> None:
    run, why = APART[case]
    layers = dict(
        dense=nn.Conv2d(4, 4, 3, padding=1),
        point=nn.Conv2d(4, 4, 1),
        wide=nn.Conv2d(4, 4, (1, 3), padding=(0, 1)),
        high=nn.Conv2d(4, 4, (3, 1), padding=(1, 0)),
        shifted=nn.Conv2d(4, 4, 2, padding=1, dilation=2, groups=2),
        depthwise=nn.Conv2d(4, 4, 3, padding=1, groups=4),
        strided=nn.Conv2d(4, 4, 1, stride=2),
        uneven=nn.Conv2d(4, 4, 2, padding="same"),
        norm=nn.BatchNorm2d(4),
        corner=nn.Conv2d(4, 4, 2),
    )
    made = fold(net(run, **layers), X2, "parallel", "concat")
    assert not made.held
    assert bool(made.refused) == bool(why)
    assert all(why in reason for reason in made.refused.values()), made.refused


STACKED: dict[str, tuple[Run, int]] = {
    "two": (lambda m, x: torch.cat((m.a(x), m.b(x)), 1), 1),
    "three": (lambda m, x: torch.cat((m.b(x), m.a(x), m.c(x)), -3), 1),
    "among others": (lambda m, x: torch.cat((x[:, :, 1:, 1:], m.a(x), m.b(x), x[:, :, 1:, 1:]), 1).relu(), 1),
    "not neighbours": (lambda m, x: torch.cat((m.a(x), x[:, :, 1:, 1:], m.b(x)), 1), 2),
    "other inputs": (lambda m, x: torch.cat((m.a(x), m.b(x.relu())), 1), 2),
    "along the image": (lambda m, x: torch.cat((m.a(x), m.a2(x)), 2), 2),
    "linear layers": (lambda m, x: torch.cat((m.linear(x), m.other(x)), -1), 1),
    "linear layers, along tokens": (lambda m, x: torch.cat((m.linear(x), m.other(x)), 2), 2),
}


@pytest.mark.parametrize("case", STACKED)
def test_layers_side_by_side_become_one(case: str) -> None:
    run, left = STACKED[case]
    made = folded(
        run,
        a=nn.Conv2d(4, 3, 2, bias=False),
        a2=nn.Conv2d(4, 3, 2),
        b=nn.Conv2d(4, 5, 2),
        c=nn.Conv2d(4, 2, 2),
        linear=nn.Linear(7, 5),
        other=nn.Linear(7, 5, bias=False),
    )
    assert made.count(*LAYERS) == left
    assert {operator for operator, _ in made.held} == ({"concat"} if left == 1 else set())


BESIDE: dict[str, tuple[Run, str]] = {
    "another window": (lambda m, x: torch.cat((m.a(x), m.point(x)), 1), "different windows"),
    "groups": (lambda m, x: torch.cat((m.g(x), m.h(x)), 1), "the groups of g and h would mix"),
    "other readers": (
        lambda m, x: torch.cat((y := m.a(x), m.b(x)), 1) + y.mean(),
        "a is read by others, too",
    ),
}


@pytest.mark.parametrize("case", BESIDE)
def test_others_stay_side_by_side(case: str) -> None:
    run, why = BESIDE[case]
    layers = dict(a=nn.Conv2d(4, 3, 3, padding=1), b=nn.Conv2d(4, 5, 3, padding=1), point=nn.Conv2d(4, 5, 1))
    made = folded(run, g=nn.Conv2d(4, 2, 3, groups=2), h=nn.Conv2d(4, 2, 3, groups=2), **layers)
    assert not made.held
    assert [why in reason for reason in made.refused.values()] == [True]


def test_what_follows_a_merged_layer_still_fits() -> None:
    made = folded(
        lambda m, x: m.norm(m.head(torch.cat((m.a(x), m.b(x)), 1)).relu() + m.c(x)),
        a=nn.Conv2d(4, 3, 3),
        b=nn.Conv2d(4, 5, 3),
        head=nn.Conv2d(8, 2, 1),
        c=nn.Conv2d(4, 2, 3),
        norm=nn.BatchNorm2d(2),
    )
    assert made.held == [("concat", "a")]
    assert made.network.get_submodule("a").weight.shape == (8, 4, 3, 3)


def test_frozen_weights_stay_frozen() -> None:
    model = net(
        lambda m, x: m.a(x) + m.b(x), a=nn.Conv2d(4, 4, 3, padding=1, bias=False), b=nn.Conv2d(4, 4, 1)
    )
    model.a.weight.requires_grad_(False)
    made = fold(model, X2, *OPERATORS)
    assert made.held == [("parallel", "a")]
    assert [p.requires_grad for p in made.network.parameters()] == [False, False]


def test_a_merged_layer_holds_what_the_old_one_held() -> None:
    class Holding(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(4, 4, 3, padding=1)
            self.behind = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.behind((super().forward(x) + x).relu())

    made = folded(lambda m, x: m.a(x), a=Holding())
    assert made.held == [("parallel", "a")]
    assert [n for n, _ in made.network.named_parameters()] == [
        "a.weight",
        "a.bias",
        "a.behind.weight",
        "a.behind.bias",
    ]
