"""What is added to the result of a convolution becomes its second input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from billhook.compile.ir import RELU, Network
from billhook.compile.lower import lower
from billhook.compile.passes.fuse_activation import fuse_activation
from billhook.compile.passes.fuse_residual import fuse_residual
from tests.unit.compile.exactness import Function, assert_equal, image, kinds


def fused(function: Callable[..., Any]) -> Network:
    """Return a network of two convolutions after the pass, which must compute the same."""
    model = Function(function, nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1))
    network = fuse_residual(fuse_activation(lower(model, image())))
    assert_equal(network, model, image())
    return network


FUSED: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "shortcut": (lambda a, b, x: a(x) + x, ["convolution"]),
    "shortcut first": (lambda a, b, x: x + a(x), ["convolution"]),
    "two convolutions": (lambda a, b, x: a(x) + b(x), ["convolution"] * 2),
    "made later": (lambda a, b, x: torch.add(a(x), x.tanh()), ["activate", "convolution"]),
    "in a row": (lambda a, b, x: b(y := a(x) + x) + y, ["convolution"] * 2),
    "three summands": (lambda a, b, x: a(x) + b(x) + x, ["binary", "convolution", "convolution"]),
    "of another": (lambda a, b, x: a(x) + x[:, [3, 2, 1, 0]], ["select", "convolution"]),
}


@pytest.mark.parametrize("name", FUSED)
def test_additions_move_into_convolutions(name: str) -> None:
    function, left = FUSED[name]
    network = fused(function)
    assert sorted(kinds(network)) == sorted(left)
    assert any(len(op.inputs) == 2 for op in network if op.kind == "convolution")


def test_the_activation_of_the_sum_becomes_that_of_the_convolution() -> None:
    network = fused(lambda a, b, x: (a(x) + x).relu())
    assert [op.activation for op in network] == [RELU]


def test_the_convolution_that_is_made_last_takes_the_other_summand() -> None:
    first, last = fused(lambda a, b, x: a(x) + b(x))
    assert last.inputs[1] is first.output


def test_the_other_summand_is_there_when_the_convolution_runs() -> None:
    network = fused(lambda a, b, x: a(x) + b(x.tanh()).relu().sigmoid())
    known = {p.value for p in network.inputs}
    for op in network:
        assert known.issuperset(op.inputs)
        known.add(op.output)


STAY: dict[str, Callable[..., Any]] = {
    "activation before the sum": lambda a, b, x: a(x).relu() + x,
    "read twice": lambda a, b, x: ((y := a(x)) + x) * y,
    "an output": lambda a, b, x: a(x) + x.mean((2, 3), keepdim=True),
    "difference": lambda a, b, x: a(x) - x,
    "twice the same": lambda a, b, x: (y := a(x)) + y,
    "no convolution": lambda a, b, x: x + x.relu(),
}


@pytest.mark.parametrize("name", STAY)
def test_other_sums_stay(name: str) -> None:
    assert "binary" in kinds(fused(STAY[name]))
