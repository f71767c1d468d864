"""How zeros are shared out between tensors: uniform, by a global threshold, LAMP, ERK."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
from torch import Tensor

from billhook.errors import InputError
from billhook.graph.patterns import Pattern, Shape, shape_of

Floats = npt.NDArray[np.float64]

_NEAR = 5e-4  # how exactly people name a sparsity that a pattern fixes
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
    layers = {}
    for name, energy in energies.items():
        shape = shape_of(energy)
        layers[name] = _Layer(shape, *patterns[name].sparsities(shape))
    least, most = reachable({n: layer.shape for n, layer in layers.items()}, patterns)
    if not least - _NEAR <= sparsity <= most + _NEAR:
        raise InputError(
            f"sparsity={sparsity:g} cannot be had with these patterns, which leave {least:.4f} to {most:.4f} "
            "of the weights at zero; ask for that, or choose other patterns"
        )
    if how in ("global", "lamp"):
        scores = {n: _scores(patterns[n].units(e), layers[n], how) for n, e in energies.items()}
        return _by_threshold(scores, layers, sparsity)
    if how == "uniform":
        return _by_scale(layers, sparsity, lambda layer, x: x)
    return _by_scale(layers, sparsity, lambda layer, x: 1 - (1 - x) / x * _erk(layer.shape) if x else -np.inf)


def require_sparsity(sparsity: object, what: str) -> None:
    """Raise `InputError`, which calls the number `what`, unless it is a fraction from 0 to below 1."""
    number = isinstance(sparsity, (int, float)) and not isinstance(sparsity, bool)
    if not number or not 0 <= sparsity < 1:  # type: ignore[operator]
        raise InputError(f"{what}={sparsity!r} must be at least 0 and below 1")


def reachable(shapes: Mapping[str, Shape], patterns: Mapping[str, Pattern]) -> tuple[float, float]:
    """Return the smallest and the largest fraction of zeros that all tensors together can have."""
    layers = [_Layer(shape, *patterns[name].sparsities(shape)) for name, shape in shapes.items()]
    total = sum(layer.weights for layer in layers)
    least, most = (
        sum(layer.weights * end for layer, end in zip(layers, ends, strict=True)) / total
        for ends in ([layer.low for layer in layers], [layer.high for layer in layers])
    )
    return least, most


def _erk(shape: Shape) -> float:
    outputs, inputs, positions = shape
    side = positions**0.5  # of a square kernel
    return float((outputs + inputs + 2 * side) / prod(shape))


def _scores(units: Tensor, layer: _Layer, how: str) -> Floats:
    """Return the scores of all units, the smallest first."""
    energy: Floats = np.sort(units.detach().float().cpu().numpy()).astype(np.float64)
    if how == "global":
        return energy * (len(energy) / layer.weights)
    above = np.cumsum(energy[::-1])[::-1]
    return np.divide(energy, above, out=np.zeros_like(energy), where=above > 0)


def _by_threshold(
    scores: Mapping[str, Floats], layers: Mapping[str, _Layer], sparsity: float
) -> dict[str, float]:
    """Let the units with the smallest scores leave until there are enough zeros; one of each tensor stays."""
    free = [n for n, layer in layers.items() if layer.high > layer.low and len(scores[n]) > 1]
    result = {n: layer.low for n, layer in layers.items()}
    wanted = sum(layer.weights * (sparsity - layer.low) for layer in layers.values())
    if not free or wanted <= 1e-6:
        return result
    # Zeros that a unit brings when it leaves, beyond those that its tensor has anyway.
    size = np.array([layers[n].weights * (1 - layers[n].low) / len(scores[n]) for n in free])
    may_leave = [scores[n][:-1] for n in free]
    leaving = _leaving(may_leave, size, wanted - 1e-6)
    for n, left in zip(free, leaving, strict=True):
        layer = layers[n]
        result[n] = layer.clipped(1 - (1 - layer.low) * (1 - int(left) / len(scores[n])))
    return result


def _leaving(scores: list[Floats], size: Floats, wanted: float) -> npt.NDArray[np.int64]:
    """Return how many of each list of sorted scores are at or below the threshold that frees `wanted`."""

    def at(threshold: float) -> npt.NDArray[np.int64]:
        return np.array([np.searchsorted(s, threshold, side="right") for s in scores])

    low, high = -1.0, max(float(s[-1]) for s in scores)
    while True:
        middle = low + (high - low) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if at(middle) @ size < wanted else (low, middle)
    below, leaving = at(low), at(high)
    for i in range(len(scores)):  # of those that score the same, the first leave
        missing = wanted - (below @ size)
        if missing <= 0:
            break
        below[i] += min(int(leaving[i] - below[i]), int(np.ceil(missing / size[i])))
    return below


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
