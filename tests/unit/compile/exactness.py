"""The oracle of lowering and of the passes: a lowered network computes what the module does, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from billhook.compile import reference
from billhook.compile.ir import Network
from billhook.compile.lower import lower
from billhook.compile.passes import run_passes

TOLERANCE = 1e-5  # of the largest output; weights are float32


class Function(nn.Module):
    """A function as a module, with the layers that it calls."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module, **constants: Tensor) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)
        for name, constant in constants.items():
            self.register_buffer(name, constant)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*self.layers, *self.buffers(recurse=False), *inputs)


def image(channels: int = 4, height: int = 6, width: int = 5, batch: int = 2) -> Tensor:
    """Return random images, the same in every run."""
    generator = torch.Generator().manual_seed(channels * 100 + height * 10 + width)
    return torch.randn(batch, channels, height, width, generator=generator)


def features(count: int = 6, batch: int = 2) -> Tensor:
    """Return random vectors, the same in every run."""
    return torch.randn(batch, count, generator=torch.Generator().manual_seed(count))


def lowered(model: nn.Module | Callable[..., Any], *inputs: Tensor) -> Network:
    """Return the lowered network, after asserting that it and its passes compute what `model` does."""
    module = model if isinstance(model, nn.Module) else Function(model)
    network = lower(module, inputs)
    assert_equal(network, module, *inputs)
    assert_equal(run_passes(network), module, *inputs)
    return network


def assert_equal(network: Network, model: nn.Module, *inputs: Tensor) -> None:
    """Assert that a network makes of the inputs what the module makes, in eval mode."""
    exact = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        made = exact(*(x.double().clone() for x in inputs))
    wanted = [t.numpy() for t in pytree.tree_leaves(made) if isinstance(t, Tensor)]
    found = reference.run(network, [x.numpy() for x in inputs])
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= TOLERANCE * np.abs(b).max()


def kinds(network: Network) -> list[str]:
    """Return the kinds of the operators in order."""
    return [op.kind for op in network]
