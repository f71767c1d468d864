"""What widths of some groups cost, while all other groups keep their size; and `Work`, a guess of time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np
import numpy.typing as npt

from billhook.allocate.rounding import Counts

Floats = npt.NDArray[np.float64]

_LEAST = 0.01  # part of the original's time that its MACs take at least: a network must gain by being narrow


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


@dataclass(frozen=True)
class Work:
    """What a network's time grows with: a·MACs + b·layers + c, in any unit.

    Attributes:
        per_mac: a.
        per_layer: b, what each layer with MACs takes however narrow it is.
        fixed: c, what the network takes without any layer.
    """

    per_mac: float = 1.0
    per_layer: float = 0.0
    fixed: float = 0.0

    @property
    def metrics(self) -> tuple[str, ...]:
        """What has to be known of a network."""
        return ("macs", "layers") if self.per_layer else ("macs",)

    @property
    def overhead(self) -> float:
        """MACs that take as long as a layer does however narrow it is."""
        return self.per_layer / self.per_mac

    def of(self, costs: Mapping[str, Floats]) -> Floats:
        """Return the work of networks with these `metrics`."""
        work = self.fixed + self.per_mac * costs["macs"]
        return work + self.per_layer * costs["layers"] if self.per_layer else work


class PlanCosts:
    """Costs of rows of widths.

    Args:
        costs: Costs of the network; knows `groups` and maybe more.
        groups: Ids of the groups whose widths are given.
        dropped: Ids of other groups, of which nothing is kept.
    """

    def __init__(self, costs: Costs, groups: Sequence[str], dropped: Collection[str] = ()) -> None:
        at = {name: i for i, name in enumerate(costs.group_ids)}
        self._costs = costs
        self._columns = [at[g] for g in groups]
        self._sizes = np.asarray(costs.sizes, dtype=np.int64)
        self._start = self._sizes.copy()
        self._start[[at[g] for g in dropped]] = 0
        self.dropped = {g: int(self._sizes[at[g]]) for g in dropped}

    def of(self, counts: Counts, metrics: Sequence[str]) -> dict[str, Floats]:
        """Return {metric: [rows]} for rows of counts."""
        rows = np.tile(self._start, (len(counts), 1))
        rows[:, self._columns] = counts
        return self._evaluate(rows, metrics)

    def original(self, metrics: Sequence[str]) -> dict[str, Floats]:
        """Return {metric: [1]} for the network that loses nothing."""
        return self._evaluate(self._sizes[None], metrics)

    def work(self, counts: Counts, work: Work) -> Floats:
        """Return the work of rows of counts: [rows]."""
        return work.of(self.of(counts, work.metrics))

    def _evaluate(self, rows: Counts, metrics: Sequence[str]) -> dict[str, Floats]:
        found = self._costs.evaluate(rows, metrics=tuple(metrics))
        return {m: np.asarray(found[m], dtype=np.float64) for m in metrics}


def fitted(macs: Floats, layers: Floats, seconds: Floats) -> Work:
    """Return the work a·MACs + b·layers + c ≈ seconds of a few networks, by least squares with a, b, c ≥ 0.

    a is at least what makes the MACs of the first network, the original, a hundredth of its seconds.
    """
    terms = np.stack([macs / macs[0], layers / layers[0], np.ones(len(macs))], axis=1)
    best, least = np.array([1.0, 0.0, 0.0]), np.inf
    for used in (c for n in (1, 2, 3) for c in combinations(range(3), n)):
        solution = np.zeros(3)
        solution[list(used)] = np.linalg.lstsq(terms[:, used], seconds, rcond=None)[0]
        error = float(((terms @ solution - seconds) ** 2).sum())
        if (solution >= 0).all() and error < least - 1e-12:
            best, least = solution, error
    per_macs = max(float(best[0]), _LEAST * float(seconds[0]))
    return Work(per_macs / float(macs[0]), float(best[1]) / float(layers[0]), float(best[2]))
