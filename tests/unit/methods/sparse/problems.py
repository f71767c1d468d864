"""Small problems for the tests of sparse methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from billhook.graph import capture
from billhook.graph.patterns import parse_pattern
from billhook.methods.sparse import SparseProblem
from billhook.methods.sparse._base import SparseOutcome
from billhook.train import FitConfig

SINGLE = "block_punched:rows=1,columns=1"
TRAINING = FitConfig(epochs=4, lr=0.05, precision="32-true", schedule="constant")


def mlp(seed: int = 0) -> nn.Sequential:
    """Return a float64 network of two linear layers with 30 and 18 weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def data(count: int = 1, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Return batches for `mlp`."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(8, 5, generator=generator, dtype=torch.float64),
            torch.randint(3, (8,), generator=generator),
        )
        for _ in range(count)
    ]


def problem(model: nn.Module, sparsity: float, pattern: str = SINGLE, **changes: Any) -> SparseProblem:
    """Return the problem of making all linear layers and convolutions of a network sparse."""
    inputs = changes.pop("inputs", data()[0][0])
    graph = capture(model, inputs)
    patterns = {layer.tensor: parse_pattern(pattern) for layer in graph.weights}
    settings: dict[str, Any] = {"data": data(), "captured": graph}
    return SparseProblem(model, inputs, patterns, sparsity, **settings | changes)


def masks(outcome: SparseOutcome) -> dict[str, Tensor]:
    """Return where weights stay."""
    return {name: s.mask for name, s in outcome.structures.items()}


def largest(scores: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Return True for the scores that stay if the lowest fraction `sparsity` of all together leaves."""
    flat = np.concatenate([s.detach().double().reshape(-1).numpy() for s in scores.values()])
    leaving = np.argsort(flat, kind="stable")[: int(np.ceil(sparsity * len(flat) - 1e-9))]
    keep = np.ones(len(flat), dtype=bool)
    keep[leaving] = False
    edges = np.cumsum([s.numel() for s in scores.values()])[:-1]
    return {
        name: torch.from_numpy(part).reshape(s.shape)
        for (name, s), part in zip(scores.items(), np.split(keep, edges), strict=True)
    }


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Return True if both have the same tensors, bit by bit."""
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)
