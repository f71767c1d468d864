"""Scales and shifts per channel move to where they cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from billhook.compile import reference
from billhook.compile.ir import Affine, Network
from billhook.compile.lower import lower
from billhook.compile.passes.fold_affine import fold_affine
from billhook.compile.passes.move_scales import move_scales
from tests.unit.compile.exactness import Function, assert_equal, image, kinds


def moved(function: Callable[..., Any], *layers: nn.Module) -> Network:
    """Return the network after the pass, which must compute the same."""
    with torch.no_grad():
        for layer in layers:
            for tensor in layer.parameters():
                tensor.copy_((tensor * 64).round() / 64)  # so that float32 rounds nothing
    model = Function(function, *layers)
    before = fold_affine(lower(model, image()))
    network = move_scales(before)
    assert_equal(network, model, image())
    x = [image().double().numpy()]
    for a, b in zip(reference.run(before, x), reference.run(network, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)
    return network


def gate(x: torch.Tensor) -> torch.Tensor:
    """Return one number for each channel."""
    return x.mean((2, 3), keepdim=True).sigmoid()


def test_the_numbers_by_channel_are_scaled_not_the_planes() -> None:
    network = moved(lambda x: (x * gate(x)) * 2)
    (scale,) = (op for op in network if isinstance(op, Affine))
    assert scale.output.is_vector
    assert kinds(network) == ["mean", "activate", "affine", "binary"]


def test_a_shift_stays_behind_the_product() -> None:
    network = moved(lambda x: (x * gate(x)) * 2 + 1)
    assert not any(op.output.is_vector for op in network if isinstance(op, Affine))


INTO_WEIGHTS: dict[str, Callable[..., Any]] = {
    "two convolutions": lambda a, b, x: a(y := x.relu() * 2 + 1) * b(y),
    "behind an average": lambda a, b, x: a(y := x.relu() * 2 + 1) * b(y).mean((2, 3), keepdim=True),
    "a mean of it": lambda a, b, x: a(y := x.relu() * 3 - 1) * b(y.mean((2, 3), keepdim=True)),
    "the largest of it": lambda a, b, x: a(functional.max_pool2d(x.relu() * 3 - 2, 3, padding=1)),
}


@pytest.mark.parametrize("name", INTO_WEIGHTS)
def test_all_readers_take_it_into_their_weights(name: str) -> None:
    assert "affine" not in kinds(moved(INTO_WEIGHTS[name], nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)))


def test_averages_that_count_zeros_let_a_scale_pass() -> None:
    def forward(conv: nn.Conv2d, x: torch.Tensor) -> Any:
        return conv(functional.avg_pool2d(x.relu() * 3, 3, padding=1))

    assert kinds(moved(forward, nn.Conv2d(4, 4, 1))) == ["activate", "pool", "convolution"]


STAY: dict[str, Callable[..., Any]] = {
    "read by a sum": lambda a, x: a(y := x.relu() * 2) + y,
    "an output": lambda a, x: (a(y := x.relu() * 2), y),
    "zeros are added to it": lambda a, x: a(functional.avg_pool2d(x.relu() + 1, 3, padding=1)),
    "the smallest becomes the largest": lambda a, x: a(functional.max_pool2d(x.relu() * -1, 2)),
    "an activation between": lambda a, x: a((x.tanh() * 2).mean((2, 3), keepdim=True).relu()),
}


@pytest.mark.parametrize("name", STAY)
def test_what_would_change_the_result_stays(name: str) -> None:
    assert "affine" in kinds(moved(STAY[name], nn.Conv2d(4, 4, 1)))
