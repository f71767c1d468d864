"""What is done to joined planes is done before they are joined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from billhook.compile.lower import lower
from billhook.compile.passes import run_passes
from billhook.compile.passes.through_select import through_select
from tests.unit.compile.exactness import Function, assert_equal, image, kinds


def norm(channels: int) -> nn.BatchNorm2d:
    """Return a batch norm with random scales and shifts."""
    layer = nn.BatchNorm2d(channels)
    assert layer.running_mean is not None
    for tensor in (layer.weight, layer.bias, layer.running_mean):
        nn.init.uniform_(tensor, -1, 1)
    return layer.eval()


def passed(function: Callable[..., Any], *layers: nn.Module) -> list[str]:
    """Return the kinds of what all passes leave; this one alone must compute the same."""
    model = Function(function, *layers)
    network = through_select(lower(model, image()))
    assert_equal(network, model, image())
    return kinds(run_passes(network))


def layers() -> list[nn.Module]:
    """Return two convolutions, and a batch norm of what both make."""
    return [nn.Conv2d(4, 5, 1), nn.Conv2d(4, 3, 3, padding=1), norm(8)]


GONE: dict[str, Callable[..., Any]] = {
    "joined": lambda a, b, n, x: n(torch.cat([a(x), b(x)], 1)),
    "in another order": lambda a, b, n, x: n(torch.cat([b(x), a(x)], 1)),
    "shuffled": lambda a, b, n, x: n(torch.cat([a(x), b(x)], 1)[:, [6, 0, 3, 7, 1, 5, 2, 4]]),
    "activated": lambda a, b, n, x: torch.cat([a(x), b(x)], 1).relu(),
    "scaled and activated": lambda a, b, n, x: n(torch.cat([a(x), b(x)], 1)).relu(),
}


@pytest.mark.parametrize("name", GONE)
def test_convolutions_do_it(name: str) -> None:
    assert passed(GONE[name], *layers()) == ["convolution", "convolution", "select"]


STAY: dict[str, Callable[..., Any]] = {
    "read before": lambda a, b, n, x: (
        n(torch.cat([y := a(x), b(x)], 1)).mean((2, 3)) + y.amax((1, 2, 3))[:, None]
    ),
    "a part of it": lambda a, b, n, x: torch.cat([a(x), b(x)], 1)[:, 2:7].relu(),
    "no convolution": lambda a, b, n, x: torch.cat([a(x), x[:, :3].relu()], 1).relu(),
    "joined planes read twice": lambda a, b, n, x: n(y := torch.cat([a(x), b(x)], 1)) * y,
}


@pytest.mark.parametrize("name", STAY)
def test_what_is_read_otherwise_stays(name: str) -> None:
    made = passed(STAY[name], *layers())
    assert "affine" in made or "activate" in made
