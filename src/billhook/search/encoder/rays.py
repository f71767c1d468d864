"""From what a policy says to a candidate at the edge of the budget: exact, whatever it says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from billhook.search.costs import SearchCosts
from billhook.search.space import Floats, Genes

_PROBES = 24  # rows that are costed at once; two or three rounds find the place


def at_budget(costs: SearchCosts, start: Floats, step: Floats) -> Genes:
    """Return the candidate nearest to `start`, on the way along -`step`, that keeps all limits.

    All genes lose fractions in proportion to `step`, until the limits hold, each down to its lowest value.
    What rounding leaves of the budget is used up by raising single genes, which ones depends on the candidate
    alone. So an agent only says how what has to leave is shared out, and each of its candidates is as large
    as the budget allows.

    Args:
        costs: With limits, which some candidate keeps.
        start: Fractions; [genes].
        step: Not negative; [genes].
    References:
        Yu et al., AGMC: after an episode what is still missing is taken off the layers in proportion to
        1 - a, in one pass.
    Differs from the source:
        That pass misses the budget where ratios are clipped; this one meets it.
    """
    space = costs.space
    ways = _thresholds(costs, start, step)
    low, high = 0, len(ways) - 1  # the limits hold from `high` on, as far as is known
    while low < high:
        probes = np.unique(np.linspace(low, high - 1, min(_PROBES, high - low)).astype(np.int64))
        holds = costs.within(space.nearest(start - ways[probes, None] * step))
        first = int(holds.argmax()) if holds.any() else len(probes)
        high = int(probes[first]) if first < len(probes) else high
        low = int(probes[first - 1]) + 1 if first else low
    row: Genes = space.nearest(start - ways[high] * step)[0]
    return costs.fitted(row, np.random.default_rng([7, *row]))


def meets(costs: SearchCosts, fractions: Floats) -> bool:
    """Return True if the candidate nearest to `fractions` [genes] keeps all limits."""
    return bool(costs.within(costs.space.nearest(fractions))[0])


def _thresholds(costs: SearchCosts, start: Floats, step: Floats) -> npt.NDArray[np.float64]:
    """Return a λ ≥ 0 for each candidate that `nearest(start - λ · step)` comes by, rising from 0."""
    places = [np.zeros(1)]
    for gene, at, slope in zip(costs.space.genes, start, step, strict=True):
        values = np.array(gene.values) / gene.full
        if slope > 0:
            places.append((at - (values[1:] + values[:-1]) / 2) / slope)
    crossed = np.unique(np.concatenate(places))
    crossed = crossed[crossed >= 0]
    return np.append((crossed[1:] + crossed[:-1]) / 2, crossed[-1] * 2 + 1)
