"""A scale and shift moves into the weights before or behind it, where that is exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from billhook.compile.ir import Network
from billhook.compile.lower import lower
from billhook.compile.passes.fold_affine import fold_affine
from tests.unit.compile.exactness import Function, assert_equal, features, image, kinds


def folded(model: nn.Module, *inputs: Tensor) -> list[str]:
    """Return the kinds of what is left after the pass, which must compute the same."""
    network: Network = fold_affine(lower(model.eval(), inputs))
    assert_equal(network, model, *inputs)
    return kinds(network)


def norm(channels: int) -> nn.BatchNorm2d:
    """Return a batch norm with random scales and shifts."""
    layer = nn.BatchNorm2d(channels)
    generator = torch.Generator().manual_seed(channels)
    for tensor in (layer.weight, layer.bias, layer.running_mean):
        assert tensor is not None
        nn.init.uniform_(tensor, -1, 1, generator=generator)
    return layer


BEHIND: dict[str, nn.Module] = {
    "convolution": nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), norm(6)),
    "groups": nn.Sequential(nn.Conv2d(4, 6, 3, groups=2, bias=False), norm(6)),
    "depthwise": nn.Sequential(nn.Conv2d(4, 8, 3, padding=2, groups=4), norm(8)),
}


@pytest.mark.parametrize("name", BEHIND)
def test_behind_a_convolution(name: str) -> None:
    assert folded(BEHIND[name], image()) == ["convolution"]


def test_behind_a_linear_layer() -> None:
    model = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))
    nn.init.uniform_(model[1].running_mean)
    assert folded(model, features(6)) == ["linear"]


def test_several_become_one() -> None:
    assert folded(nn.Sequential(norm(4), norm(4)), image()) == ["affine"]
    assert folded(Function(lambda x: (x * 2 + 1) / 3 - 4), image()) == ["affine"]


BEFORE: dict[str, tuple[nn.Module, list[str]]] = {
    "a convolution": (nn.Sequential(norm(4), nn.Conv2d(4, 6, 3, stride=2)), ["convolution"]),
    "a convolution in groups": (nn.Sequential(norm(4), nn.Conv2d(4, 6, 2, groups=2)), ["convolution"]),
    "one that pads": (nn.Sequential(norm(4), nn.Conv2d(4, 6, 3, padding=1)), ["affine", "convolution"]),
    "a linear layer": (nn.Sequential(norm(4), nn.Flatten(), nn.Linear(120, 3)), ["linear"]),
}


@pytest.mark.parametrize("name", BEFORE)
def test_before_what_has_weights(name: str) -> None:
    model, left = BEFORE[name]
    assert folded(model, image()) == left


def test_a_scale_alone_moves_into_a_convolution_that_pads() -> None:
    assert folded(Function(lambda c, x: c(x * 3), nn.Conv2d(4, 6, 3, padding=1)), image()) == ["convolution"]


def test_on_both_sides() -> None:
    assert folded(nn.Sequential(norm(4), nn.Conv2d(4, 6, 1), norm(6)), image()) == ["convolution"]


STAY: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "read twice": (lambda c, x: ((y := c(x)) * 2, y), ["convolution", "affine"]),
    "an output": (lambda c, x: (y := c(x)) * 2 + y.relu(), ["convolution", "affine", "activate", "binary"]),
    "activation between": (lambda c, x: c(x).relu() * 2, ["convolution", "activate", "affine"]),
    "scaled input read twice": (lambda c, x: c(y := x * 2) + y, ["affine", "convolution", "binary"]),
}


@pytest.mark.parametrize("name", STAY)
def test_what_is_read_otherwise_stays(name: str) -> None:
    function, left = STAY[name]
    assert folded(Function(function, nn.Conv2d(4, 4, 1)), image()) == left


def test_what_changes_nothing_goes() -> None:
    assert folded(Function(lambda x: (x * 1 + 0).relu()), image()) == ["activate"]
    assert folded(Function(lambda x: x * 1), image()) == []
