"""`Path`: all widths an allocator passes through between the smallest and the full network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from billhook.allocate.allocator import Allocator, Space
from billhook.allocate.costs import Costs, Floats, PlanCosts
from billhook.allocate.rounding import Counts, allowed_counts, keep_best
from billhook.graph.groups import ChannelGroup

Keeps = Mapping[str, npt.NDArray[np.bool_]]

KEYS: dict[str, str] = {"macs": "macs", "params": "params", "size": "bytes"}  # metric of a budget → of a cost


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
        branches: Ids of the groups in each residual branch that the allocator may empty; all in `groups`.
        seconds: Measures what a plan takes relative to the original network; None without a latency bound.
    """

    def __init__(
        self,
        groups: Sequence[ChannelGroup],
        scores: Sequence[Floats],
        allocator: Allocator,
        costs: Costs,
        fits: Callable[[int], bool],
        dropped: Collection[str] = (),
        gone: Keeps | None = None,
        branches: Sequence[Sequence[str]] = (),
        seconds: Callable[[Keeps], float] | None = None,
    ) -> None:
        self.groups = tuple(groups)
        absent = [(gone or {}).get(g.id, np.zeros(g.size, dtype=bool)) for g in groups]
        given = [np.asarray(s, dtype=np.float64) for s in scores]
        # As nothing but rank, a unit that has left is below all.
        self._ranks = [np.where(a, -np.inf, s) for s, a in zip(given, absent, strict=True)]
        widths = [allowed_counts(g.size, g.width, fits) for g in groups]
        self.allowed = [_up_to(w, int((~a).sum())) for w, a in zip(widths, absent, strict=True)]
        self._costs = PlanCosts(costs, [g.id for g in groups], dropped)
        at = {g.id: i for i, g in enumerate(groups)}
        space = Space(
            # For the allocator such a unit is one of the least.
            scores=[_with_least(s, a) for s, a in zip(given, absent, strict=True)],
            allowed=self.allowed,
            branches=[tuple(at[g] for g in branch) for branch in branches],
            costs=self._costs,
            seconds=None if seconds is None else lambda counts: seconds(self.keep(counts)),
        )
        self._work = allocator.work(space)
        self._curve = allocator.curve(space, self._work) if groups else None

    @property
    def dropped(self) -> Collection[str]:
        """Ids of the groups of which nothing is kept."""
        return self._costs.dropped

    @property
    def overhead(self) -> float:
        """MACs that a layer is taken to cost beside its own."""
        return self._work.overhead

    def counts(self, amounts: npt.ArrayLike) -> Counts:
        """Return the units that stay: [amounts, groups]; rows grow with the amount, up to full at 1.

        A group keeps none of its units where a branch around it has left.
        """
        amounts = np.atleast_1d(np.asarray(amounts, dtype=np.float64))
        return np.empty((len(amounts), 0), dtype=np.int64) if self._curve is None else self._curve(amounts)

    def cost(self, counts: Counts, metrics: Sequence[str]) -> dict[str, Floats]:
        """Return {metric of a budget: [rows]} for rows of counts."""
        found = self._costs.of(counts, [KEYS[m] for m in metrics])
        return {m: found[KEYS[m]] for m in metrics}

    def original(self, metrics: Sequence[str]) -> dict[str, float]:
        """Return the costs of the network that loses nothing."""
        found = self._costs.original([KEYS[m] for m in metrics])
        return {m: float(found[KEYS[m]][0]) for m in metrics}

    def work(self, counts: Counts) -> Floats:
        """Return what the latency of rows of counts grows with, relative to the original network: [rows]."""
        original = self._work.of(self._costs.original(self._work.metrics))
        return self._costs.work(counts, self._work) / original

    def keep(self, counts: Counts) -> dict[str, npt.NDArray[np.bool_]]:
        """Return which units stay, per group id, for one row of counts."""
        chosen = zip(self.groups, self._ranks, counts, strict=True)
        best = {g.id: keep_best(s, int(n)) for g, s, n in chosen}
        return best | {name: np.zeros(size, dtype=bool) for name, size in self._costs.dropped.items()}


def _with_least(scores: Floats, absent: npt.NDArray[np.bool_]) -> Floats:
    """Return `scores` with 0, or the least score there is if that is negative, for absent units."""
    if not absent.any():
        return scores
    return np.where(absent, min(0.0, float(scores[~absent].min(initial=0.0))), scores)


def _up_to(allowed: Counts, most: int) -> Counts:
    """Return the allowed widths up to `most`; the smallest one if all are larger."""
    return allowed[: max(1, int(np.searchsorted(allowed, most, side="right")))]
