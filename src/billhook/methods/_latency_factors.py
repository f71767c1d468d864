"""How much time the MACs of each group are worth on a runtime, measured."""

from __future__ import annotations

import numpy as np

from billhook.graph import make_plan
from billhook.methods._base import Problem
from billhook.methods._decide import timing


def latency_factors(problem: Problem) -> list[float]:
    """Return, for every group, the latency that halving it saves, relative to the MACs that it saves.

    One measured network for each group, in turns with the original. 1 means that the group's MACs are worth
    as much time as MACs are on average; noise is kept out below 0.05 and above 20.
    """
    factors = []
    macs = problem.graph.costs.cost(None).macs
    with timing(problem) as measure:
        for group in problem.groups:
            half = np.arange(group.size) < max(1, group.size // 2)
            if half.all():
                factors.append(1.0)
                continue
            plan = make_plan(problem.graph, {group.id: half})
            left = problem.graph.costs.cost(plan).macs / macs
            sample = measure({group.id: half}, False)
            saved = 1 - sample.candidate / sample.original
            factors.append(float(np.clip(saved / max(1e-9, 1 - left), 0.05, 20.0)))
    return factors
