"""Sharing out zeros under a bound on modelled latency: the least energy lost per second saved.

Every layer has a set of options, each with its seconds and its loss; dense is one of them. The lower convex
hull of (seconds saved, loss) says in which order a layer gives way, the multiplier that meets the bound how
far: all layers walk down their hulls together, the cheapest step first. What the last step saved too much is
then spent where it takes back the most loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf, isfinite, log, prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from billhook.errors import BudgetError, InputError, suggest
from billhook.graph.patterns import Pattern, shape_of
from billhook.graph.structure import view_shape
from billhook.graph.weights import WeightLayer
from billhook.sparse.allocation import require_sparsity
from billhook.sparse.mapping.candidates import keeps_blocks, reach
from billhook.sparse.mapping.latency_table import LatencyModel, LatencyTable
from billhook.sparse.patterns._blocks import Blocks

Floats = npt.NDArray[np.float64]

GRID = (0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.825, 0.85, 0.875, 0.9, 0.92, 0.935, 0.95, 0.965, 0.98)
LOSSES = ("lamp", "fraction", "energy")


@dataclass(frozen=True)
class Option:
    """One thing that can be done with a layer.

    Attributes:
        pattern: Of its weight; None: dense.
        sparsity: Fraction of zeros to ask for.
        seconds: Modelled.
        loss: What is lost, 0 for dense.
    """

    pattern: Pattern | None
    sparsity: float
    seconds: float
    loss: float


def share_out(
    layers: Sequence[WeightLayer],
    energies: Mapping[str, Tensor],
    choices: Mapping[str, Pattern | None],
    latency_bound: float,
    table: LatencyModel | None = None,
    *,
    loss: str = "lamp",
    grid: Sequence[float] = GRID,
) -> dict[str, float]:
    """Return the fraction of zeros of every tensor that should have any, so that the network meets a bound.

    Each layer has the pattern of `choices` or stays dense; the tensors that are not in the result stay dense.
    The same pattern for all layers gives the best single scheme to compare a mapping with.

    Args:
        layers: Of the network.
        energies: What each weight is worth (w²), [outputs, inputs, positions] by tensor.
        choices: Tensor → its pattern; None, or not named: dense.
        latency_bound: Upper bound in seconds on the modelled latency of all layers.
        table: What a layer costs; None: the default table.
        loss: Of a layer that keeps the fraction f of its energy: "lamp": -log f, which is the sum of the LAMP
            scores of what leaves in the limit of many weights; "fraction": 1 - f; "energy": what it loses,
            not normalised.
        grid: Sparsities to try.
    Raises:
        BudgetError: if the bound cannot be met; names what can be.
        InputError: for a grid outside [0, 1), an unknown loss, or a tensor that lacks a layer or an energy.
    """
    table = LatencyTable.default() if table is None else table
    _require_known(layers, choices)
    offered = {t: (p,) for t, p in choices.items() if p is not None}
    curves = [
        options_of(layer, energies, offered.get(layer.tensor, ()), table, loss=loss, grid=grid)
        for layer in layers
    ]
    taken = descend(curves, latency_bound)
    return {la.tensor: o.sparsity for la, o in zip(layers, taken, strict=True) if o.pattern is not None}


def options_of(
    layer: WeightLayer,
    energies: Mapping[str, Tensor],
    patterns: Sequence[Pattern],
    table: LatencyModel,
    *,
    loss: str = "lamp",
    grid: Sequence[float] = GRID,
) -> list[Option]:
    """Return what can be done with a layer: dense, then every pattern at every sparsity it can reach."""
    if loss not in LOSSES:
        raise InputError(f"loss={loss!r}: expected one of {', '.join(LOSSES)}")
    options = [Option(None, 0.0, table.latency(layer, None, 0.0), 0.0)]
    if not patterns:
        return options
    energy = _energy(layer, energies)
    total = float(energy.sum(dtype=torch.float64))
    for pattern in patterns:
        for sparsity, zeros, lost in removals(pattern, energy, grid):
            worth = _loss(lost, total, loss)
            if isfinite(worth):  # something of the layer is left
                options.append(Option(pattern, sparsity, table.latency(layer, pattern, zeros), worth))
    return options


def removals(pattern: Pattern, energy: Tensor, grid: Sequence[float]) -> list[tuple[float, float, float]]:
    """Return (sparsity to ask for, fraction of zeros it gives, energy that leaves) along the grid.

    Points that the pattern cannot reach are left out; the least that it takes away is always one.
    """
    shape = shape_of(energy)
    low, high = reach(pattern, shape)
    for sparsity in grid:
        require_sparsity(sparsity, "sparsity")
    wanted = sorted({*(s for s in grid if low < s <= high), *([low] if 0 < low < 1 else [])})
    asked = [pattern.unit_sparsity(s, shape) for s in wanted]
    if keeps_blocks(pattern, shape):
        results = _sorted_blocks(pattern, energy, asked)
    else:
        results = [_selected(pattern, energy, a) for a in asked]
    return [(s, *r) for s, r in zip(wanted, results, strict=True) if 0 < r[0] < 1]


def descend(curves: Sequence[Sequence[Option]], bound: float) -> list[Option]:
    """Return one option per layer, so that the sum of seconds is at most `bound` and that of losses small.

    Raises:
        BudgetError: if even the fastest options miss the bound.
    """
    if not isfinite(bound) or bound <= 0:
        raise InputError(f"latency bound {bound!r} must be a number of seconds above 0")
    least = sum(min(o.seconds for o in options) for options in curves)
    if least > bound:
        raise BudgetError(
            f"these patterns cannot bring the modelled latency to {bound:.4g} s; {least:.4g} s can be had. "
            "Raise the bound, or allow more patterns or a larger sparsity",
            {"latency": least},
        )
    taken = [options[0] for options in curves]
    # Slopes rise along a hull, so sorting all steps by their slope keeps the order within each layer.
    steps = [(slope, i, o) for i, options in enumerate(curves) for slope, o in _hull(options)]
    for _, i, option in sorted(steps, key=lambda s: s[:2]):
        if sum(o.seconds for o in taken) <= bound:
            break
        taken[i] = option
    return _given_back(curves, taken, bound)


def _given_back(curves: Sequence[Sequence[Option]], taken: list[Option], bound: float) -> list[Option]:
    """Spend what is left below the bound where it saves the most loss."""
    while True:
        spare = bound - sum(o.seconds for o in taken)
        best, gain = None, 0.0
        for i, options in enumerate(curves):
            for option in options:
                if option.seconds - taken[i].seconds <= spare and taken[i].loss - option.loss > gain:
                    best, gain = (i, option), taken[i].loss - option.loss
        if best is None:
            return taken
        taken[best[0]] = best[1]


def _hull(options: Sequence[Option]) -> list[tuple[float, Option]]:
    """Return the corners of the lower convex hull of the options, each with the slope that leads to it."""
    first = options[0]
    faster = sorted((o for o in options if o.seconds < first.seconds), key=lambda o: (-o.seconds, o.loss))
    corners: list[tuple[float, Option]] = []
    for option in faster:
        while corners and _slope(corners[-1][1], option) <= corners[-1][0]:
            corners.pop()
        corners.append((_slope(corners[-1][1] if corners else first, option), option))
    return corners


def _slope(start: Option, end: Option) -> float:
    saved = start.seconds - end.seconds
    return (end.loss - start.loss) / saved if saved > 0 else (inf if end.loss > start.loss else -inf)


def _sorted_blocks(pattern: Blocks, energy: Tensor, asked: Sequence[float]) -> list[tuple[float, float]]:
    """Return (fraction of zeros, lost energy); blocks share no weight, so one sort serves all sparsities."""
    units: Floats = pattern.units(energy).double().numpy()
    shape, block = shape_of(energy), pattern.block(shape_of(energy))
    if any(s % b for s, b in zip(shape, block, strict=True)):
        sizes: Floats = pattern.units(torch.ones_like(energy)).double().numpy()
    else:
        sizes = np.full(len(units), float(prod(block)))
    order = np.argsort(units, kind="stable")
    lost, zeros = np.cumsum(units[order]), np.cumsum(sizes[order])
    results = []
    for sparsity in asked:
        kept = max(1, min(len(units), ceil((1 - sparsity) * len(units) - 1e-9)))
        left = len(units) - kept
        results.append((float(zeros[left - 1] / zeros[-1]), float(lost[left - 1])) if left else (0.0, 0.0))
    return results


def _selected(pattern: Pattern, energy: Tensor, sparsity: float) -> tuple[float, float]:
    gone = ~pattern.mask(pattern.select(energy, sparsity), shape_of(energy))
    return int(gone.sum()) / gone.numel(), float(energy[gone].sum(dtype=torch.float64))


def _loss(lost: float, total: float, how: str) -> float:
    if how == "energy" or total <= 0:
        return max(0.0, lost)
    fraction = min(1.0, max(0.0, lost / total))
    if how == "fraction":
        return fraction
    return -log(1 - fraction) if fraction < 1 else inf


def _energy(layer: WeightLayer, energies: Mapping[str, Tensor]) -> Tensor:
    energy = energies.get(layer.tensor)
    if energy is None:
        raise InputError(f"no energy is given for {layer.tensor!r}{suggest(layer.tensor, energies)}")
    expected = view_shape(layer.shape, layer.transposed)
    if tuple(energy.shape) != expected:
        raise InputError(
            f"the energy of {layer.tensor} has the shape {list(energy.shape)}, not {list(expected)}: "
            "outputs, inputs, positions"
        )
    energy = energy.detach().cpu()
    if not bool(torch.isfinite(energy).all()) or bool((energy < 0).any()):
        raise InputError(f"the energy of {layer.tensor} has entries that are not finite or below 0")
    return energy


def _require_known(layers: Sequence[WeightLayer], choices: Mapping[str, Pattern | None]) -> None:
    names = {layer.tensor for layer in layers}
    for tensor in choices:
        if tensor not in names:
            raise InputError(f"no layer has the weight {tensor!r}{suggest(tensor, names)}")
