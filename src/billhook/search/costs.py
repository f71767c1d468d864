"""`SearchCosts`: what candidates cost, by formula and, for latency, by a model; and which are allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from billhook.allocate.budget import Budget, format_value
from billhook.allocate.path import KEYS
from billhook.errors import BudgetError, InputError, suggest
from billhook.search.space import Floats, Genes, Space
from billhook.sparse.row_costs import RowCosts

FORMULAS = ("macs", "params", "size")
_SLACK = 1e-12  # a fraction that was computed from a cost leads back to it, whatever the last digit


class RowLatency(Protocol):
    """A model of latency: never less where a gene has a larger value."""

    def of(self, rows: Genes) -> Floats:
        """Return the seconds of rows of genes: [rows]."""
        ...

    @property
    def original(self) -> float:
        """The seconds of the network that loses nothing."""
        ...


class SearchCosts:
    """Costs of the candidates of a space.

    Args:
        space: The candidates.
        budget: Bounds that hold for every candidate that is evaluated; None: none do.
        latency: Needed for a bound on latency, and to ask for it.
    Raises:
        InputError: for a bound on latency without a model.
    """

    def __init__(self, space: Space, budget: Budget | None = None, latency: RowLatency | None = None) -> None:
        self.space, self.latency = space, latency
        self._formulas = RowCosts(space.whole, {la.tensor: space.patterns[la.tensor] for la in space.layers})
        self.metrics: tuple[str, ...] = (*FORMULAS, *(("latency",) if latency is not None else ()))
        bounds = {} if budget is None else dict(budget.bounds)
        if "latency" in bounds and latency is None:
            raise InputError("a budget on latency needs a latency model; give latency='fitted' or 'table'")
        whole = self.of(space.highest[None])
        self.original: dict[str, float] = {m: float(v[0]) for m, v in whole.items()}
        self.limits: dict[str, float] = {
            m: b.absolute(self.original[m]) * (1 + _SLACK * b.relative) for m, b in bounds.items()
        }

    def of(self, rows: Genes, metrics: Sequence[str] | None = None) -> dict[str, Floats]:
        """Return each metric of rows of genes, in base units: [rows].

        Raises:
            InputError: for an unknown metric.
        """
        rows, wanted = np.atleast_2d(rows), self.metrics if metrics is None else tuple(metrics)
        for metric in wanted:
            if metric not in self.metrics:
                raise InputError(f"unknown cost metric {metric!r}{suggest(metric, self.metrics)}")
        formulas = [m for m in wanted if m != "latency"]
        counts, densities = self.space.counts(rows), self.space.densities(rows)
        found = self._formulas.of(counts, densities, [KEYS[m] for m in formulas])
        result = {m: np.asarray(found[KEYS[m]], dtype=np.float64) for m in formulas}
        if "latency" in wanted:
            assert self.latency is not None
            result["latency"] = self.latency.of(rows)
        return result

    def relative(self, rows: Genes, metric: str) -> Floats:
        """Return a metric relative to the network that loses nothing: [rows]."""
        return self.of(rows, (metric,))[metric] / self.original[metric]

    def within(self, rows: Genes) -> npt.NDArray[np.bool_]:
        """Return which rows keep all limits: [rows]."""
        rows = np.atleast_2d(rows)
        holds = np.ones(len(rows), dtype=bool)
        if self.limits:
            found = self.of(rows, tuple(self.limits))
            for metric, limit in self.limits.items():
                holds &= found[metric] <= limit
        return holds

    def reachable(self) -> dict[str, tuple[float, float]]:
        """Return the least and the most that each metric can be."""
        ends = self.of(np.stack([self.space.lowest, self.space.highest]))
        return {m: (float(v[0]), float(v[1])) for m, v in ends.items()}

    def require_reachable(self) -> None:
        """Raise `BudgetError`, which names the range, if no candidate keeps a limit."""
        reachable = self.reachable()
        for metric, limit in self.limits.items():
            least, most = reachable[metric]
            if limit < least:
                raise BudgetError(
                    f"budget {metric} ≤ {_show(metric, limit, most)} cannot be met: candidates of this "
                    f"search reach from {_show(metric, least, most)} to {_show(metric, most, most)}. Raise "
                    "the bound, widen the scope, or lower the least fraction of channels",
                    {metric: least},
                )

    def fitted(self, genes: Genes, rng: np.random.Generator) -> Genes:
        """Return a candidate within all limits near to one row, or the row itself if nothing more fits.

        Random genes are lowered one value at a time until the limits hold, then random ones raised as long as
        they do: what comes out uses the budget up, as good candidates do.

        Raises:
            BudgetError: if no candidate keeps the limits.
        """
        genes = np.array(genes, dtype=np.int64)
        return self._raised(self.lowered(genes, rng), rng) if self.limits else genes

    def lowered(self, genes: Genes, rng: np.random.Generator) -> Genes:
        """Return the row itself if it keeps the limits, else the first that does on a random way down.

        Raises:
            BudgetError: if no candidate keeps the limits.
        """
        return genes if self.within(genes)[0] else self._lowered(genes, rng)

    def filled(self, genes: Genes) -> Genes:
        """Return a row within the limits with what is left of the budget given to the narrowest genes.

        The gene with the least fraction is raised by one value, again and again, or the next one if the
        limits do not let it.
        """
        genes = np.array(genes, dtype=np.int64)
        open_ = np.ones(len(genes), dtype=bool)
        while self.limits and (candidates := np.flatnonzero(open_ & (genes < self.space.highest))).size:
            narrowest = candidates[int(self.space.fractions(genes)[0][candidates].argmin())]
            genes[narrowest] += 1
            if not self.within(genes)[0]:
                genes[narrowest] -= 1
                open_[narrowest] = False  # costs only grow from here on
        return genes

    def _lowered(self, genes: Genes, rng: np.random.Generator) -> Genes:
        """Return the first row within the limits on a random way down to the lowest."""
        steps = rng.permutation(np.repeat(np.arange(len(genes)), genes))
        way = genes - np.cumsum(np.eye(len(genes), dtype=np.int64)[steps], axis=0)
        holds = self.within(way) if len(way) else np.zeros(0, dtype=bool)
        if not holds.any():
            self.require_reachable()
            raise BudgetError("no candidate keeps all limits of the budget together", {})
        found: Genes = way[int(holds.argmax())]
        return found

    def _raised(self, genes: Genes, rng: np.random.Generator) -> Genes:
        """Return a row from which no gene can be raised by one value."""
        open_ = np.ones(len(genes), dtype=bool)
        while True:
            candidates = np.flatnonzero(open_ & (genes < self.space.highest))
            if not len(candidates):
                return genes
            raised = genes + np.eye(len(genes), dtype=np.int64)[candidates]
            holds = self.within(raised)
            open_[candidates[~holds]] = False  # costs only grow from here on
            if holds.any():
                genes = raised[int(rng.choice(np.flatnonzero(holds)))]


def _show(metric: str, value: float, original: float) -> str:
    return f"{format_value(metric, value)} ({value / original:.1%} of the original)"
