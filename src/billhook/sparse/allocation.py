"""How zeros are shared out between tensors: uniform, by a global threshold, LAMP, ERK."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from numbers import Real

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from billhook.errors import InputError
from billhook.graph.patterns import Pattern, Shape, shape_of

Floats = npt.NDArray[np.float64]

NEAR = 5e-4  # how exactly people name a sparsity that a pattern fixes
ALLOCATIONS = ("uniform", "global", "lamp", "erk")


@dataclass(frozen=True)
class _Layer:
    """A tensor in the sharing out: how many weights it has, and which fractions of zeros it can reach."""

    shape: Shape
    low: float
    high: float

    @property
    def weights(self) -> int:
        return prod(self.shape)

    def clipped(self, sparsity: float) -> float:
        return float(min(max(sparsity, self.low), self.high))


def allocate(
    energies: Mapping[str, Tensor], patterns: Mapping[str, Pattern], sparsity: float, how: str = "lamp"
) -> dict[str, float]:
    """Return the fraction of zeros of every tensor, so that all of them together have `sparsity`.

    "uniform": the same everywhere. "global": the units with the least energy per weight leave, wherever they
    are. "lamp": the same with scores u ↦ e_u / Σ_{v: e_v ≥ e_u} e_v, which are on one scale for all tensors
    and 1 for the largest unit of each. "erk": density ∝ (outputs + inputs + kernel) / (outputs · inputs ·
    positions), so that small tensors stay denser.

    Args:
        energies: Of every weight, [outputs, inputs, positions] by tensor.
        patterns: Of every tensor.
        sparsity: Fraction of all these weights that shall be zero, from 0 to below 1.
        how: One of `ALLOCATIONS`.
    Raises:
        InputError: for a sparsity outside [0, 1) or one that the patterns cannot reach; says what they can.
    References:
        Lee et al., "Layer-adaptive Sparsity for the Magnitude-based Pruning" (LAMP), ICLR 2021, eq. (1).
        Evci et al., "Rigging the Lottery" (ERK), ICML 2020, section 3.
    """
    require_sparsity(sparsity, "sparsity")
    if how not in ALLOCATIONS:
        raise InputError(f"allocation={how!r}: expected one of {', '.join(ALLOCATIONS)}")
    layers = _layers({name: shape_of(energy) for name, energy in energies.items()}, patterns)
    _require_within(sparsity, *_reach(layers))
    if how in ("global", "lamp"):
        units = {n: _units(patterns[n], e, layers[n], how) for n, e in energies.items()}
        return _by_threshold(units, layers, sparsity)
    if how == "uniform":
        return _by_scale(layers, sparsity, lambda layer, x: x)
    return _by_scale(layers, sparsity, lambda layer, x: 1 - (1 - x) / x * _erk(layer.shape) if x else -np.inf)


def require_sparsity(sparsity: object, what: str) -> None:
    """Raise `InputError`, which calls the number `what`, unless it is a fraction from 0 to below 1."""
    number = isinstance(sparsity, Real) and not isinstance(sparsity, bool)
    if not number or not 0 <= sparsity < 1:  # type: ignore[operator]
        raise InputError(f"{what}={sparsity!r} must be at least 0 and below 1")


def reachable(shapes: Mapping[str, Shape], patterns: Mapping[str, Pattern]) -> tuple[float, float]:
    """Return the smallest and the largest fraction of zeros that all tensors together can have."""
    return _reach(_layers(shapes, patterns))


def require_reachable(shapes: Mapping[str, Shape], patterns: Mapping[str, Pattern], sparsity: float) -> None:
    """Raise `InputError` if all tensors together cannot have this fraction of zeros; says what they can."""
    _require_within(sparsity, *reachable(shapes, patterns))


def _layers(shapes: Mapping[str, Shape], patterns: Mapping[str, Pattern]) -> dict[str, _Layer]:
    return {name: _Layer(shape, *patterns[name].sparsities(shape)) for name, shape in shapes.items()}


def _reach(layers: Mapping[str, _Layer]) -> tuple[float, float]:
    total = sum(layer.weights for layer in layers.values())
    least = sum(layer.weights * layer.low for layer in layers.values()) / total
    most = sum(layer.weights * layer.high for layer in layers.values()) / total
    return least, most


def _require_within(sparsity: float, least: float, most: float) -> None:
    if not least - NEAR <= sparsity <= most + NEAR:
        raise InputError(
            f"sparsity={sparsity:g} cannot be had with these patterns, which leave {least:.4f} to {most:.4f} "
            "of the weights at zero; ask for that, or choose other patterns"
        )


def _erk(shape: Shape) -> float:
    outputs, inputs, positions = shape
    side = positions**0.5  # of a square kernel
    return float((outputs + inputs + 2 * side) / prod(shape))


@dataclass(frozen=True)
class _Units:
    """The units of a tensor that may leave, in the order in which they do.

    Attributes:
        scores: Rising: [units].
        zeros: What leaves with them, and with all before them, beyond what is zero anyway: [units].
    """

    scores: Floats
    zeros: Floats

    def up_to(self, threshold: float) -> int:
        return int(np.searchsorted(self.scores, threshold, side="right"))

    def freed(self, count: int) -> float:
        return float(self.zeros[count - 1]) if count else 0.0


def _units(pattern: Pattern, energy: Tensor, layer: _Layer, how: str) -> _Units:
    """Return all units but the largest, which stays."""
    units = pattern.units(energy).detach().float().cpu().numpy()
    sizes = pattern.units(torch.ones(layer.shape)).numpy()
    whole = layer.weights * (1 - layer.low)
    if sizes.min() == sizes.max():
        values: Floats = np.sort(units).astype(np.float64)
        zeros: Floats = np.arange(1, len(values) + 1, dtype=np.float64) * (whole / len(values))
    else:  # blocks at the border are smaller
        order = np.argsort(units, kind="stable")
        values = units[order].astype(np.float64)
        zeros = np.cumsum(sizes[order], dtype=np.float64) * (whole / sizes.sum())
    if how == "global":
        scores: Floats = values * (len(values) / layer.weights)
    else:
        above: Floats = np.cumsum(values[::-1])[::-1]
        scores = np.divide(values, above, out=np.zeros_like(values), where=above > 0)
    return _Units(scores[:-1], zeros[:-1])


def _by_threshold(
    units: Mapping[str, _Units], layers: Mapping[str, _Layer], sparsity: float
) -> dict[str, float]:
    """Let the units with the smallest scores leave until there are enough zeros; one of each tensor stays."""
    free = [n for n, layer in layers.items() if layer.high > layer.low and len(units[n].scores)]
    result = {n: layer.low for n, layer in layers.items()}
    wanted = sum(layer.weights * (sparsity - layer.low) for layer in layers.values())
    if not free or wanted <= 1e-6:
        return result
    leaving = _leaving([units[n] for n in free], wanted - 1e-6)
    for n, left in zip(free, leaving, strict=True):
        layer = layers[n]
        result[n] = layer.clipped(layer.low + units[n].freed(left) / layer.weights)
    return result


def _leaving(units: list[_Units], wanted: float) -> list[int]:
    """Return how many of each list are at or below the threshold that frees `wanted`."""

    def freed(threshold: float) -> float:
        return sum(u.freed(u.up_to(threshold)) for u in units)

    low, high = -1.0, max(float(u.scores[-1]) for u in units)
    while True:
        middle = low + (high - low) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if freed(middle) < wanted else (low, middle)
    leaving = [u.up_to(low) for u in units]
    for i, u in enumerate(units):  # of those that score the same, the first leave
        missing = wanted - sum(v.freed(k) for v, k in zip(units, leaving, strict=True))
        if missing <= 0:
            break
        enough = int(np.searchsorted(u.zeros, u.freed(leaving[i]) + missing)) + 1
        leaving[i] = max(leaving[i], min(u.up_to(high), enough))
    return leaving


def _by_scale(
    layers: Mapping[str, _Layer], sparsity: float, at: Callable[[_Layer, float], float]
) -> dict[str, float]:
    """Return what `at` gives for the x, found by bisection, at which all layers together have `sparsity`."""
    low, high = 0.0, 1.0
    wanted = sparsity * sum(layer.weights for layer in layers.values())
    for _ in range(60):
        middle = (low + high) / 2
        zeros = sum(layer.weights * layer.clipped(at(layer, middle)) for layer in layers.values())
        low, high = (middle, high) if zeros < wanted else (low, middle)
    return {n: layer.clipped(at(layer, high)) for n, layer in layers.items()}
