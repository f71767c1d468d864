"""`Path`: all widths an allocator passes through between the smallest and the full network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from billhook.allocate.allocator import Allocator, Floats
from billhook.allocate.rounding import Counts, allowed_counts, keep_best, nearest
from billhook.graph.groups import ChannelGroup

KEYS: dict[str, str] = {"macs": "macs", "params": "params", "size": "bytes"}  # metric of a budget → of a cost


class Costs(Protocol):
    """Costs of many plans at once; see `billhook.graph.CostModel`."""

    @property
    def group_ids(self) -> tuple[str, ...]:
        """Ids of the prunable groups: the columns of `counts`."""

    @property
    def sizes(self) -> Counts:
        """Their full sizes: [groups]."""

    def evaluate(self, counts: Counts, *, metrics: Sequence[str]) -> Mapping[str, Floats]:
        """Return each metric for every row of kept counts: [plans]."""


class Path:
    """Widths as a function of one amount t, each a number of units the runtime likes.

    Args:
        groups: Groups that may shrink; all others keep their size.
        scores: Per group, in the same order, one score per unit.
        allocator: What shares the width out.
        costs: Costs of plans; knows `groups` and maybe more.
        fits: Whether a number of channels is one the runtime likes.
        dropped: Ids of groups of which nothing is kept; none of `groups`.
        gone: Per group id, units that have left already: they come back only where no width that `fits` is
            as small as what is left.
    """

    def __init__(
        self,
        groups: Sequence[ChannelGroup],
        scores: Sequence[Floats],
        allocator: Allocator,
        costs: Costs,
        fits: Callable[[int], bool],
        dropped: Collection[str] = (),
        gone: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    ) -> None:
        self.groups = tuple(groups)
        absent = [(gone or {}).get(g.id, np.zeros(g.size, dtype=bool)) for g in groups]
        given = [np.asarray(s, dtype=np.float64) for s in scores]
        # For the allocator a unit that has left is one of the least; as nothing but rank, it is below all.
        self.scores = [_with_least(s, a) for s, a in zip(given, absent, strict=True)]
        self._ranks = [np.where(a, -np.inf, s) for s, a in zip(given, absent, strict=True)]
        widths = [allowed_counts(g.size, g.width, fits) for g in groups]
        self.allowed = [_up_to(w, int((~a).sum())) for w, a in zip(widths, absent, strict=True)]
        self._allocator, self._costs = allocator, costs
        columns = {name: i for i, name in enumerate(costs.group_ids)}
        self._columns = [columns[g.id] for g in groups]
        self.dropped = {name: columns[name] for name in dropped}

    def counts(self, amounts: npt.ArrayLike) -> Counts:
        """Return the units that stay: [amounts, groups]; rows grow with the amount, up to full at 1."""
        amounts = np.atleast_1d(np.asarray(amounts, dtype=np.float64))
        if not self.groups:
            return np.empty((len(amounts), 0), dtype=np.int64)
        wanted = self._allocator.wanted(self.scores, amounts)
        return np.stack([nearest(w, a) for w, a in zip(wanted.T, self.allowed, strict=True)], axis=1)

    def cost(self, counts: Counts, metrics: Sequence[str]) -> dict[str, Floats]:
        """Return {metric: [rows]} for rows of counts."""
        rows = np.tile(np.asarray(self._costs.sizes, dtype=np.int64), (len(counts), 1))
        rows[:, self._columns] = counts
        rows[:, list(self.dropped.values())] = 0
        return self._evaluate(rows, metrics)

    def original(self, metrics: Sequence[str]) -> dict[str, float]:
        """Return the costs of the network that loses nothing."""
        rows = np.asarray(self._costs.sizes, dtype=np.int64)[None]
        return {m: float(v[0]) for m, v in self._evaluate(rows, metrics).items()}

    def keep(self, counts: Counts) -> dict[str, npt.NDArray[np.bool_]]:
        """Return which units stay, per group id, for one row of counts."""
        chosen = zip(self.groups, self._ranks, counts, strict=True)
        best = {g.id: keep_best(s, int(n)) for g, s, n in chosen}
        nothing = {n: np.zeros(int(self._costs.sizes[c]), dtype=bool) for n, c in self.dropped.items()}
        return best | nothing

    def _evaluate(self, rows: Counts, metrics: Sequence[str]) -> dict[str, Floats]:
        found = self._costs.evaluate(rows, metrics=tuple(KEYS[m] for m in metrics))
        return {m: np.asarray(found[KEYS[m]], dtype=np.float64) for m in metrics}


def _with_least(scores: Floats, absent: npt.NDArray[np.bool_]) -> Floats:
    """Return `scores` with 0, or the least score there is if that is negative, for absent units."""
    if not absent.any():
        return scores
    return np.where(absent, min(0.0, float(scores[~absent].min(initial=0.0))), scores)


def _up_to(allowed: Counts, most: int) -> Counts:
    """Return the allowed widths up to `most`; the smallest one if all are larger."""
    return allowed[: max(1, int(np.searchsorted(allowed, most, side="right")))]
