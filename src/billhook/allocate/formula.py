"""The widest network within bounds that are formulas of the widths: MACs, parameters, bytes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from billhook.allocate.path import Path
from billhook.allocate.rounding import Counts

Limits = Mapping[str, float]  # metric → upper bound in base units

_GRID, _ROUNDS = 257, 3  # 256³ steps of the amount are finer than any network has units
_ENOUGH, _CLOSE = 0.99, 0.95  # of the bound


def largest_amount(path: Path, limits: Limits) -> float:
    """Return the largest amount whose widths meet all limits; those of amount 0 must meet them.

    Evaluates a few hundred networks at once, three times.
    """
    low, high = 0.0, 1.0
    if within(path, path.counts(1.0), limits)[0]:
        return 1.0
    for _ in range(_ROUNDS):
        amounts = np.linspace(low, high, _GRID)
        last = int(np.flatnonzero(within(path, path.counts(amounts), limits))[-1])
        low, high = float(amounts[last]), float(amounts[last + 1])
    return low


def fill(path: Path, amount: float, limits: Limits) -> Counts:
    """Return the widths at `amount`, with single groups grown while the limits hold: [groups].

    All groups grow together along the path, so coarse rounding can leave room under the limit. Groups
    get one more step each, in the order in which the path itself would give it, and a second one only if the
    limit is still far. A branch that has left does not come back.
    """
    counts: Counts = path.counts(amount)[0]
    goal = _ENOUGH
    while usage(path, counts, limits) < goal:
        grown = _grow_each(path, counts, amount, limits)
        if np.array_equal(grown, counts):
            break
        counts, goal = grown, _CLOSE
    return counts


def within(path: Path, counts: Counts, limits: Limits) -> npt.NDArray[np.bool_]:
    """Return which rows of counts meet all limits: [rows]."""
    if not limits:
        return np.ones(len(counts), dtype=bool)
    costs = path.cost(counts, tuple(limits))
    fits: npt.NDArray[np.bool_] = np.logical_and.reduce([costs[m] <= n for m, n in limits.items()])
    return fits


def usage(path: Path, counts: Counts, limits: Limits) -> float:
    """Return how much of the tightest limit one row of counts uses; 1 = all."""
    if not limits:
        return 1.0
    costs = path.cost(counts[None], tuple(limits))
    return max(float(costs[m][0]) / limit for m, limit in limits.items())


def _grow_each(path: Path, counts: Counts, amount: float, limits: Limits) -> Counts:
    ahead = path.counts(np.linspace(amount, 1.0, _GRID)) > counts
    turn = np.where(ahead.any(axis=0), ahead.argmax(axis=0), _GRID)
    counts = counts.copy()
    for group in np.argsort(turn, kind="stable"):
        allowed = path.allowed[group]
        step = int(np.searchsorted(allowed, counts[group], side="right"))
        if step == len(allowed) or counts[group] == 0:
            continue
        grown = counts.copy()
        grown[group] = allowed[step]
        if within(path, grown[None], limits)[0]:
            counts = grown
    return counts
