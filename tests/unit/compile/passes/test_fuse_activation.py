"""An activation is applied by the operator that makes its input, if nobody else reads that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from billhook.compile.ir import RELU, Network
from billhook.compile.lower import lower
from billhook.compile.passes.fuse_activation import fuse_activation
from tests.unit.compile.exactness import Function, assert_equal, features, image, kinds


def fused(model: nn.Module, *inputs: Tensor) -> Network:
    """Return the network after the pass, which must compute the same."""
    network = fuse_activation(lower(model, inputs))
    assert_equal(network, model, *inputs)
    return network


MAKERS: dict[str, tuple[Callable[..., Tensor], str]] = {
    "convolution": (lambda conv, x: conv(x).relu(), "convolution"),
    "affine": (lambda conv, x: (x * 2).relu(), "affine"),
    "binary": (lambda conv, x: (x * x.flip(1)).relu(), "binary"),
    "mean": (lambda conv, x: x.mean((2, 3)).relu(), "mean"),
    "average": (lambda conv, x: functional.avg_pool2d(x, 2).relu(), "pool"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_activations_move_into_makers(name: str) -> None:
    function, kind = MAKERS[name]
    network = fused(Function(function, nn.Conv2d(4, 3, 1)), image())
    assert [k for k in kinds(network) if k != "select"] == [kind]
    assert network.ops[-1].activation == RELU


def test_an_activation_moves_into_a_linear_layer() -> None:
    assert kinds(fused(nn.Sequential(nn.Linear(6, 3), nn.Hardswish()), features(6))) == ["linear"]


@pytest.mark.parametrize(
    "activation", [nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.1), nn.Sigmoid(), nn.Tanh(), nn.Hardsigmoid()]
)
def test_an_activation_that_never_falls_moves_before_a_max_pool(activation: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(4, 3, 1), nn.MaxPool2d(3, 2, 1), activation)
    assert kinds(fused(model, image())) == ["convolution", "pool"]


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.Hardswish(), nn.GELU(), nn.LeakyReLU(-0.5)])
def test_an_activation_that_falls_somewhere_stays_behind_a_max_pool(activation: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(4, 3, 1), nn.MaxPool2d(3, 2, 1), activation)
    assert kinds(fused(model, image())) == ["convolution", "pool", "activate"]


STAY: dict[str, Callable[..., Any]] = {
    "read twice": lambda conv, x: (y := conv(x)).relu() + y,
    "an output": lambda conv, x: ((y := conv(x)).relu(), y),
    "two activations": lambda conv, x: conv(x).relu().tanh(),
}


@pytest.mark.parametrize("name", STAY)
def test_what_is_read_before_its_activation_keeps_it_apart(name: str) -> None:
    assert "activate" in kinds(fused(Function(STAY[name], nn.Conv2d(4, 3, 1)), image()))


def test_an_activation_stays_behind_a_max_pool_of_what_is_read_twice() -> None:
    model = Function(lambda conv, x: (functional.max_pool2d(y := conv(x), 2).relu(), y), nn.Conv2d(4, 3, 1))
    assert kinds(fused(model, image())) == ["convolution", "pool", "activate"]


def test_an_activation_of_an_input_stays() -> None:
    assert kinds(fused(Function(torch.relu), image())) == ["activate"]
