"""Several costs at once: dominance, fronts, crowding, hypervolume. All costs are to be made small."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from billhook.errors import InputError

Costs = npt.NDArray[np.float64]  # [rows, costs]; infinite is allowed (a trial that failed), NaN is not
Rows = npt.NDArray[np.int64]

_AT_ONCE = 2**22  # comparisons in memory


def dominance(costs: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return whether row i dominates row j: nowhere larger, somewhere smaller; [rows, rows], i before j.

    Args:
        costs: [rows, costs].
    Raises:
        InputError: for NaN, or if `costs` is no table.
    """
    table = _table(costs)
    least = np.ones((len(table), len(table)), dtype=bool)
    less = np.zeros_like(least)
    for column in table.T:
        least &= column[:, None] <= column[None, :]
        less |= column[:, None] < column[None, :]
    return least & less


def fronts(costs: npt.ArrayLike) -> list[Rows]:
    """Return the rows by rank: first those that no row dominates, then those that only the first do, …

    Equal rows are in the same front. Rows rise within a front. Takes memory for rows² flags.

    References:
        Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE TEVC 2002, section
        III.A.
    """
    dominates = dominance(costs)
    above = dominates.sum(0)
    waiting = np.ones(len(above), dtype=bool)
    found = []
    while waiting.any():
        front = np.flatnonzero(waiting & (above == 0))
        found.append(front)
        waiting[front] = False
        above -= dominates[front].sum(0)
    return found


def front(costs: npt.ArrayLike) -> Rows:
    """Return the rows that no other row dominates, rising; of equal rows, all.

    Two costs take a sort; more of them compare every row with every other, in bounded memory.
    """
    table = _table(costs)
    if not len(table):
        return np.zeros(0, dtype=np.int64)
    if table.shape[1] == 2:
        return _front_of_two(table)
    beaten = np.zeros(len(table), dtype=bool)
    step = max(1, _AT_ONCE // table.size)
    for start in range(0, len(table), step):
        here = table[start : start + step, None]
        above = np.all(table <= here, axis=2) & np.any(table < here, axis=2)
        beaten[start : start + step] = np.any(above, axis=1)
    return np.flatnonzero(~beaten)


def crowding(costs: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return how much room each row of one front has around it: [rows], higher = keep.

    The sum over the costs of the distance between both neighbours, in parts of the whole range; infinite for
    a row that is the first or the last in any cost. A cost that is the same everywhere says nothing; of equal
    rows at an end, one is the end. Infinite costs count as the largest finite one.

    Args:
        costs: [rows, costs] of one front.
    References:
        Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE TEVC 2002, section
        III.B.
    Differs from the source:
        A cost without any range gives no row infinite room, unless no cost has a range: which of equal rows
        comes first is chance. JCW's code leaves the second of the sorted rows out; here all are counted.
    """
    table = _finite(_table(costs))
    count = len(table)
    room = np.zeros(count)
    spans = table.max(0) - table.min(0) if count else np.zeros(table.shape[1])
    for column, span in zip(table.T, spans, strict=True):
        if span > 0:
            order = np.argsort(column, kind="stable")
            ranked = column[order]
            room[order[1:-1]] += (ranked[2:] - ranked[:-2]) / span
            room[order[[0, -1]]] = np.inf
    if count and not (spans > 0).any():
        room[[0, -1]] = np.inf
    return room


def hypervolume(costs: npt.ArrayLike, reference: Sequence[float]) -> float:
    """Return the area that rows of two costs dominate, up to a reference point; exact.

    Rows that are not below the reference in both costs add nothing.

    Args:
        costs: [rows, 2].
        reference: What counts as worst, in both costs.
    Raises:
        InputError: for NaN, or if there are not two costs.
    """
    table, (right, top) = _pair(costs, reference)
    inside = table[(table < (right, top)).all(1)]
    if not len(inside):
        return 0.0
    points = inside[_front_of_two(inside)]
    points = points[np.lexsort((points[:, 1], points[:, 0]))]
    edges = np.append(points[1:, 0], right)
    return float(((edges - points[:, 0]) * (top - points[:, 1])).sum())


def hypervolumes(costs: npt.ArrayLike, reference: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return the hypervolume of the first row, the first two, …: [rows]; it never falls.

    Each row costs a look-up, and the rows that it drives off the front.
    """
    table, (right, top) = _pair(costs, reference)
    corners: list[tuple[float, float]] = []  # the front, first cost rising, second falling
    volume, found = 0.0, np.zeros(len(table))
    for i, (x, y) in enumerate(table.tolist()):
        at = bisect_left(corners, (x, -np.inf))
        ceiling = corners[at - 1][1] if at else top
        behind = at < len(corners) and corners[at][0] == x and corners[at][1] <= y
        if x < right and y < ceiling and not behind:
            edge, height = x, ceiling
            while at < len(corners) and corners[at][1] >= y:
                other, low = corners.pop(at)
                volume += (other - edge) * (height - y)
                edge, height = other, low
            volume += ((corners[at][0] if at < len(corners) else right) - edge) * (height - y)
            insort(corners, (x, y))
        found[i] = volume
    return found


def _front_of_two(table: Costs) -> Rows:
    order = np.lexsort((table[:, 1], table[:, 0]))
    first, second = table[order].T
    lowest = np.minimum.accumulate(second)
    before = np.append(np.inf, lowest[:-1])
    new = np.append(True, (first[1:] != first[:-1]) | (second[1:] != second[:-1]))
    # Equal rows follow each other: they share the fate of the first of them.
    kept = np.where(new, second < before, False)
    kept[0] = True
    of_first = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    return np.sort(order[kept[of_first]])


def _table(costs: npt.ArrayLike) -> Costs:
    table = np.asarray(costs, dtype=np.float64)
    if table.ndim != 2:
        raise InputError(f"costs of shape {list(table.shape)}: expected [rows, costs]")
    if np.isnan(table).any():
        raise InputError(f"the costs of row {int(np.isnan(table).any(1).argmax())} are NaN")
    return table


def _pair(costs: npt.ArrayLike, reference: Sequence[float]) -> tuple[Costs, tuple[float, float]]:
    table = _table(costs)
    if table.shape[1] != 2 or len(reference) != 2:
        raise InputError(
            f"hypervolume of {table.shape[1]} costs with a reference of {len(reference)}; it is for two"
        )
    right, top = map(float, reference)
    if not np.isfinite([right, top]).all():
        raise InputError(f"the reference point ({right}, {top}) is not finite")
    return table, (right, top)


def _finite(table: Costs) -> Costs:
    """Return the table with the largest and smallest finite number of a column for its infinite ones."""
    finite = np.isfinite(table)
    if finite.all():
        return table
    high = np.where(finite, table, -np.inf).max(0, initial=-np.inf)
    low = np.where(finite, table, np.inf).min(0, initial=np.inf)
    high, low = (np.where(np.isfinite(edge), edge, 0.0) for edge in (high, low))
    return np.clip(table, low, high)
