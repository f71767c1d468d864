"""Which rows of a population survive: JCW's selection for all latencies, and NSGA-II's.

All functions are given a table of two costs, [rows, (loss, latency)], and return rising row numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from billhook.errors import InputError
from billhook.search.pareto import Costs, Rows, crowding, fronts


def latency_targets(
    low: float, high: float, count: int, rng: np.random.Generator | None = None
) -> npt.NDArray[np.float64]:
    """Return the latencies that `unds` selects for: [count], rising, both ends among them.

    Args:
        low: Latency at the lower bounds of all genes.
        high: At the upper bounds.
        count: How many; at least 2, unless one is wanted (the lower end).
        rng: None: evenly from `low` to `high`; otherwise those between the ends are drawn.
    Raises:
        InputError: if `low` is above `high`, or `count` is below 1.
    """
    if not low <= high or count < 1:
        raise InputError(f"{count} targets from {low:g} to {high:g}: expected 1 or more, low before high")
    if rng is None or count < 3:
        return np.linspace(low, high, count)
    inner = low + (high - low) * rng.random(count - 2)
    return np.concatenate([[low], np.sort(inner), [high]])


def unds(costs: npt.ArrayLike, targets: npt.ArrayLike, count: int) -> Rows:
    """Return the `count` rows that uniform non-dominated sorting selects.

    Plain sorting by (loss, latency) fills a population with what is easy to be good at. Here, rows are sorted
    by (loss, |latency - T|) for every target T; the best fronts of all targets are taken in turn, then the
    second fronts, and so on. Of a front that is too large, rows with much room on the axis of latency come
    first.

    Args:
        costs: [rows, (loss, latency)].
        targets: Latencies T; keep them fixed over all generations.
        count: How many survive; with fewer rows, all do.
    References:
        Zhao et al., "Joint Channel and Weight Pruning for Model Acceleration on Mobile Devices", 2021,
        section 3.4. arXiv:2110.08013. (The order of filling is that of its code.)
    """
    table, all_fronts = _sorted_by_targets(costs, targets)
    chosen: dict[int, None] = {}
    for stage in range(max(map(len, all_fronts), default=0)):
        for of_target in all_fronts:
            if stage < len(of_target):
                members = of_target[stage]
                if len({*chosen, *members.tolist()}) > count:
                    members = _roomiest_first(members, table[:, 1:])
                _fill(chosen, members, count)
    return np.array(sorted(chosen), dtype=np.int64)


def by_individual(costs: npt.ArrayLike, targets: npt.ArrayLike, count: int) -> Rows:
    """Return the `count` rows that the targets pick in turns, each its best one that is left: an ablation.

    The order of a target is that of its fronts (see `unds`), within a front by room on the axis of latency.

    Differs from the source:
        JCW's code picks from the wrong end of each target's order, the worst first.
    """
    table, all_fronts = _sorted_by_targets(costs, targets)
    orders = [
        np.concatenate([_roomiest_first(members, table[:, 1:]) for members in of_target])
        for of_target in all_fronts
    ]
    chosen: dict[int, None] = {}
    for picked in zip(*orders, strict=True):
        _fill(chosen, np.array(picked), count)
    return np.array(sorted(chosen), dtype=np.int64)


def nsga2(costs: npt.ArrayLike, count: int) -> Rows:
    """Return the `count` rows of the best fronts; of a front that is too large, those with much room.

    Args:
        costs: [rows, costs], any number of costs.
        count: How many survive; with fewer rows, all do.
    References:
        Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE TEVC 2002.
    """
    table = np.asarray(costs, dtype=np.float64)
    chosen: dict[int, None] = {}
    for members in fronts(table):
        if len(chosen) + len(members) > count:
            members = _roomiest_first(members, table)
        _fill(chosen, members, count)
    return np.array(sorted(chosen), dtype=np.int64)


def _sorted_by_targets(costs: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[Costs, list[list[Rows]]]:
    """Return the table, and its fronts by (loss, distance to the target) for every target."""
    table = np.asarray(costs, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != 2:
        raise InputError(f"costs of shape {list(table.shape)}: expected [rows, (loss, latency)]")
    return table, [list(_fronts_at(table, float(t))) for t in np.asarray(targets, dtype=np.float64)]


def _fronts_at(table: Costs, target: float) -> Iterator[Rows]:
    yield from fronts(np.stack([table[:, 0], np.abs(table[:, 1] - target)], 1))


def _roomiest_first(members: Rows, costs: Costs) -> Rows:
    """Return the members of a front by the room they have, most first; of equal ones, the first row."""
    return members[np.argsort(-crowding(costs[members]), kind="stable")]


def _fill(chosen: dict[int, None], members: Rows, count: int) -> None:
    for member in members.tolist():
        if len(chosen) < count:
            chosen[member] = None
