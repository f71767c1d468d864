"""Shortcuts as copies: the same function, channel by channel; what is no shortcut is left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from billhook import models
from billhook.fuse import ChannelCopy
from billhook.graph import apply, capture, make_plan, verify
from tests.fused import fused
from tests.networks import build
from tests.residual import Stages, residual
from tests.small_net import net
from tests.unit.fuse.passes.widening import places, reasons, widen

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A residual block with a shortcut of one kind; rank and activation vary."""

    def __init__(
        self, shortcut: str = "identity", rank: int = 2, act: Callable[[Tensor], Tensor] = F.relu
    ) -> None:
        super().__init__()
        conv, norm = (
            (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1],
            (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1],
        )
        after, stride = (6, 1) if shortcut == "identity" else (10, 2)
        self.kind, self.act, self.rank = shortcut, act, rank
        self.stem = conv(3, 6, 1)
        self.conv1, self.bn1 = conv(6, 8, 3, stride, 1), norm(8)
        self.conv2, self.bn2 = conv(8, after, 3, 1, 1, bias=False), norm(after)
        self.project = conv(6, after, 1, stride)
        self.norm = norm(after)
        self.out = conv(after, 2, 1)

    def shortcut(self, x: Tensor) -> Tensor:
        if self.kind == "identity":
            return x
        if self.kind == "padded":
            x = x[(slice(None), slice(None), *[slice(None, None, 2)] * self.rank)]
            return F.pad(x, (*[0, 0] * self.rank, 1, 3))
        x = self.project(x)
        return self.norm(x) if self.kind == "normed projection" else x

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        y = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        return self.out(self.act(y + self.shortcut(x)))


KINDS = ("identity", "padded", "projection", "normed projection")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_shortcuts_of_every_kind_and_rank(kind: str, rank: int) -> None:
    made = widen(Block(kind, rank), torch.randn(2, 3, *[6] * rank))
    ((name, site),) = made.held
    assert name == "shortcut"
    assert site.operator == ("add_projection" if "projection" in kind else "add_identity")
    copies = [m for m in made.network.modules() if isinstance(m, ChannelCopy)]
    assert len(copies) == (1 if "projection" in kind else 2)
    if kind == "padded":
        assert copies[1].index.tolist() == [-1, 0, 1, 2, 3, 4, 5, -1, -1, -1]


@pytest.mark.parametrize("act", [F.relu6, F.silu, F.gelu, torch.tanh, lambda x: x])
def test_values_may_be_negative(act: Callable[[Tensor], Tensor]) -> None:
    assert places(widen(Block(act=act), X), "shortcut")


@pytest.mark.parametrize("kind", KINDS)
def test_without_one_copy_its_channel_is_taken_from_the_sum(kind: str) -> None:
    """Removing copy c = subtracting x_c from what its output channels are before the activation."""
    model = Block(kind).eval()
    network = widen(model, X).network
    graph = capture(network, X.double())
    (name,) = [g.id for g in graph.groups.prunable if g.id.endswith("copies")]
    keep = np.arange(6) != 4
    small = apply(network, make_plan(graph, {name: keep}))
    model = model.double()
    with torch.no_grad():
        x = model.act(model.stem(X.double()))
        y = model.bn2(model.conv2(model.act(model.bn1(model.conv1(x)))))
        alone = torch.zeros_like(x)
        alone[:, 4] = x[:, 4]
        lost = model.shortcut(alone) - model.shortcut(torch.zeros_like(x))
        expected = model.out(model.act(y + model.shortcut(x) - lost))
        torch.testing.assert_close(small(X.double()), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_a_group_and_outputs_are_another(kind: str) -> None:
    network = widen(Block(kind), X).network
    graph = capture(network, X.double())
    prunable = [g.id for g in graph.groups.prunable]
    assert {"stem", "conv1", "conv2"} < set(prunable)
    assert len(prunable) == 4
    plan = make_plan(graph, {g.id: np.arange(g.size) % 3 != 1 for g in graph.groups.prunable})
    assert verify(network, plan, X.double()).exact


def test_names_are_those_of_blocks() -> None:
    network, _ = fused("basic")
    assert {n for n, m in network.named_modules() if isinstance(m, ChannelCopy)} == {
        "layer1.0.copies", "layer1.0.place", "layer1.1.copies", "layer1.1.place", "layer2.0.copies"
    }  # fmt: skip


def test_option_a_of_cifar() -> None:
    model = models.build("resnet-20", width=4, num_classes=5, shortcut="A")
    made = widen(model, X)
    assert len(places(made, "shortcut")) == 9
    assert {site.operator for _, site in made.held} == {"add_identity"}


def test_option_b_of_cifar() -> None:
    model = models.build("resnet-20", width=4, num_classes=5, shortcut="B")
    made = widen(model, X)
    assert sorted(site.operator for _, site in made.held) == ["add_identity"] * 7 + ["add_projection"] * 2


class Inverted(nn.Module):
    """An inverted residual with a depthwise convolution and a linear bottleneck."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.wide, self.n1 = nn.Conv2d(before, 2 * before, 1, bias=False), nn.BatchNorm2d(2 * before)
        self.depth = nn.Conv2d(2 * before, 2 * before, 3, stride, 1, groups=2 * before, bias=False)
        self.thin, self.n2 = nn.Conv2d(2 * before, after, 1, bias=False), nn.BatchNorm2d(after)
        self.same = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        y = self.n2(self.thin(F.relu6(self.depth(F.relu6(self.n1(self.wide(x)))))))
        return x + y if self.same else y


def test_inverted_residuals_need_no_positive_input() -> None:
    made = widen(Stages(Inverted), X)
    assert places(made, "shortcut") == ["layer1.0", "layer1.1"]


# What is left alone


def left_alone(run: Callable[..., Any], x: Tensor = X, **layers: nn.Module) -> dict[str, str]:
    """Return the reasons; assert that the pass rewrote nothing."""
    made = widen(net(run, **layers), x, operators=("add_identity", "add_projection"))
    assert not places(made, "shortcut")
    assert not any(isinstance(m, ChannelCopy) for m in made.network.modules())
    return reasons(made)


def convolutions(**more: nn.Module) -> dict[str, nn.Module]:
    return {"a": nn.Conv2d(3, 4, 1), "b": nn.Conv2d(4, 4, 3, padding=1), **more}


@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: (y := m.a(x)) + m.b(y).relu(),
        lambda m, x: (y := m.a(x)) + F.max_pool2d(m.b(y), 3, 1, 1),
        lambda m, x: (y := m.a(x)) + m.b(y) * m.b(y).sigmoid(),
    ],
)
def test_a_branch_that_does_not_end_in_a_convolution_is_refused(run: Callable[..., Tensor]) -> None:
    (why,) = left_alone(run, **convolutions()).values()
    assert why == "the branch does not end in a convolution, so its channels are not known"


@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: m.b(y := m.a(x)) + m.c(y),  # neither is computed from the other
        lambda m, x: (y := m.a(x)) + torch.add(m.b(y), y, alpha=2) * 0 + 2 * m.b(y),
        lambda m, x: (y := m.a(x)).mean((2, 3)) + m.b(y).mean((2, 3)),
        lambda m, x: m.a(x) + 1,
    ],
)
def test_other_sums_are_no_shortcuts(run: Callable[..., Tensor]) -> None:
    left_alone(run, **convolutions(c=nn.Conv2d(4, 4, 3, padding=1)))


@pytest.mark.parametrize("name", ["transformer", "attention"])
def test_sums_of_transformers_are_left_alone(name: str) -> None:
    network, x = fused(name)
    assert network.fusions == ()
    assert torch.allclose(network(x), residual(name)[0](x), atol=1e-5)


@pytest.mark.parametrize("name", ["plain", "grouped", "shuffle", "chunk_concat", "transposed"])
def test_networks_without_sums_come_back(name: str) -> None:
    model, x = build(name)
    made = widen(model, x, operators=("add_identity", "add_projection"))
    assert not made.held
    assert not made.refused


@pytest.mark.parametrize(
    ("form", "copies"), [("group", "symbolic"), ("concat", "symbolic"), ("chain", "dense")]
)
def test_other_forms_are_not_this_pass(form: str, copies: str) -> None:
    made = widen(Block(), X, add_form=form, copies=copies)
    assert not places(made, "shortcut")


def test_a_second_fusion_finds_nothing_new() -> None:
    network = widen(Block(), X).network
    again = widen(network, X)
    assert not places(again, "shortcut")
    assert again.network.fusions == network.fusions
