"""Weights and brute force for the tests of patterns."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import torch
from torch import Tensor

from billhook.graph.patterns import Pattern, shape_of
from billhook.graph.structure import Structure


def weight(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def projected(pattern: Pattern, w: Tensor, sparsity: float) -> Tensor:
    return Structure(pattern, shape_of(w), pattern.choose(w, sparsity)).project(w)


def error(pattern: Pattern, w: Tensor, sparsity: float) -> float:
    """Return the squared error of the pattern's projection."""
    return float((w - projected(pattern, w, sparsity)).square().sum())


def least_error(w: Tensor, units: Iterable[Tensor], leave: int) -> float:
    """Return the least squared error of all choices of `leave` units, each a mask, that become zero."""
    return min(
        float(w[torch.stack(choice).any(0)].square().sum()) for choice in combinations(list(units), leave)
    )


def mask_of(w: Tensor, *index: object) -> Tensor:
    """Return True at `w[index]`."""
    mask = torch.zeros(w.shape, dtype=torch.bool)
    mask[index] = True  # type: ignore[index]
    return mask
