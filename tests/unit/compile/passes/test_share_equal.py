"""What is computed several times is computed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from billhook.compile.lower import lower
from billhook.compile.passes.share_equal import share_equal
from tests.unit.compile.exactness import Function, assert_equal, image, kinds


def shared(function: Callable[..., Any], *layers: nn.Module) -> list[str]:
    """Return the kinds of what is left after the pass, which must compute the same."""
    model = Function(function, *layers)
    network = share_equal(lower(model, image()))
    assert_equal(network, model, image())
    return kinds(network)


def pool(x: torch.Tensor) -> torch.Tensor:
    """Return the largest numbers of windows."""
    return torch.nn.functional.max_pool2d(x, 2)


def test_equal_pools_are_one() -> None:
    assert shared(lambda x: pool(x) + pool(x).sigmoid()) == ["pool", "activate", "binary"]


def test_what_follows_equal_operators_is_equal() -> None:
    assert shared(lambda x: pool(x).tanh() * pool(x).tanh()) == ["pool", "activate", "binary"]


def test_a_layer_that_is_called_twice_runs_once() -> None:
    conv = nn.Conv2d(4, 4, 1)
    assert shared(lambda c, x: c(x).relu() + c(x), conv) == ["convolution", "activate", "binary"]


def test_the_order_of_summands_does_not_count() -> None:
    assert shared(lambda x: (x + (y := x.relu())) * (y + x)) == ["activate", "binary", "binary"]


STAY: dict[str, tuple[Callable[..., Any], int]] = {
    "other windows": (lambda x: pool(x).sum((2, 3)) + torch.nn.functional.max_pool2d(x, 3).sum((2, 3)), 7),
    "other activations": (lambda x: x.relu() + x.tanh(), 3),
    "other constants": (lambda x: x * 2 + (x * 3).relu(), 4),
    "order of a difference": (lambda x: (x - (y := x.relu())) * (y - x), 4),
}


@pytest.mark.parametrize("name", STAY)
def test_what_differs_stays(name: str) -> None:
    function, count = STAY[name]
    assert len(shared(function)) == count


def test_layers_with_other_weights_stay() -> None:
    layers = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    assert shared(lambda a, b, x: a(x) + b(x), *layers) == ["convolution", "convolution", "binary"]


def test_outputs_may_be_equal() -> None:
    assert shared(lambda x: (x.relu(), x.relu())) == ["activate"]
