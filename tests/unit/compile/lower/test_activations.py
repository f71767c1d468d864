"""Functions of single numbers, and softmax."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from billhook.compile.ir import Activation
from billhook.compile.lower import lower
from billhook.errors import UnsupportedError
from tests.unit.compile.exactness import Function, features, image, kinds, lowered

INFINITY = float("inf")
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Activation]] = {
    "relu": (torch.relu, Activation("clip")),
    "relu6": (functional.relu6, Activation("clip", 0, 6)),
    "hardtanh": (lambda x: functional.hardtanh(x, -0.5, 0.7), Activation("clip", -0.5, 0.7)),
    "clamp": (lambda x: x.clamp(-0.5, 1.5), Activation("clip", -0.5, 1.5)),
    "clamp above": (lambda x: x.clamp(max=0.5), Activation("clip", -INFINITY, 0.5)),
    "clamp below": (lambda x: x.clamp_min(-0.5), Activation("clip", -0.5)),
    "leaky": (lambda x: functional.leaky_relu(x, 0.2), Activation("leaky", 0.2)),
    "sigmoid": (torch.sigmoid, Activation("sigmoid")),
    "silu": (functional.silu, Activation("silu")),
    "hardsigmoid": (lambda x: functional.hardsigmoid(3 * x), Activation("hardsigmoid")),
    "hardswish": (lambda x: functional.hardswish(3 * x), Activation("hardswish")),
    "tanh": (torch.tanh, Activation("tanh")),
    "gelu": (functional.gelu, Activation("gelu")),
    "gelu by tanh": (lambda x: functional.gelu(x, approximate="tanh"), Activation("gelu_tanh")),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    function, activation = ACTIVATIONS[name]
    network = lowered(function, image())
    assert network.ops[-1].kind == "activate"
    assert network.ops[-1].activation == activation


def test_an_activation_of_vectors() -> None:
    assert kinds(lowered(torch.relu, features())) == ["activate"]


@pytest.mark.parametrize("count", [1, 4])
def test_prelu(count: int) -> None:
    layer = nn.PReLU(count)
    nn.init.uniform_(layer.weight, -1, 1)
    lowered(layer, image())


def test_bounds_that_are_tensors_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="bounds"):
        lower(Function(lambda x: x.clamp(min=x.mean((2, 3), keepdim=True))), image())


SOFTMAXES: dict[str, Callable[[Tensor], Tensor]] = {
    "channels": lambda x: x.softmax(1),
    "counted from the end": lambda x: x.softmax(-3),
    "many pairs": lambda x: x.repeat(1, 40, 1, 1).unflatten(1, (2, 80)).softmax(1).flatten(1, 2),
    "groups of channels": lambda x: x.unflatten(1, (2, 2)).softmax(2).flatten(1, 2),
    "across groups": lambda x: x.unflatten(1, (2, 2)).softmax(1).flatten(1, 2),
}


@pytest.mark.parametrize("name", SOFTMAXES)
def test_softmax(name: str) -> None:
    lowered(SOFTMAXES[name], image())


def test_softmax_of_vectors() -> None:
    assert kinds(lowered(lambda x: x.softmax(-1), features())) == ["softmax"]


def test_softmax_of_many_groups_is_one_operator() -> None:
    found = kinds(lowered(lambda x: x.repeat(1, 60, 1, 1).unflatten(1, (3, 80)).softmax(1), image()))
    assert found.count("softmax") == 1


@pytest.mark.parametrize("dim", [2, 3])
def test_softmax_over_pixels(dim: int) -> None:
    lowered(lambda x: x.softmax(dim), image())
