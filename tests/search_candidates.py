"""Candidates whose worth is known without a network: for agents and searchers, which need nothing else."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from billhook.allocate.budget import Budget
from billhook.graph import capture
from billhook.search.costs import RowLatency, SearchCosts
from billhook.search.space import Genes, Space
from billhook.search.studies.trial import Trial


class NoTrialsLeft(Exception):
    """As `StopSearch`."""


def mlp_space(widths: tuple[int, ...] = (16, 16, 16), parts: int = 4) -> Space:
    """Return the space of a perceptron whose hidden layers keep one to all of so many parts."""
    sizes = (8, *widths, 4)
    layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
    graph = capture(nn.Sequential(*layers[:-1]), torch.zeros(1, 8))
    groups = [g for g in graph.groups if g.prunable]
    values = {g.id: [g.size * part // parts for part in range(1, parts + 1)] for g in groups}
    return Space(graph, values, {g.id: np.arange(g.size) for g in groups})


class Judged:
    """Candidates that a function of their genes judges; stands for a session.

    Args:
        space: Of the candidates.
        accuracy: Of one row.
        budget: None: no limits.
        trials: How many may be evaluated.
        latency: See `SearchCosts`.
    """

    def __init__(
        self,
        space: Space,
        accuracy: Callable[[Genes], float],
        budget: Budget | None = None,
        trials: int = 1000,
        latency: RowLatency | None = None,
    ) -> None:
        self.space, self.costs, self.metric = space, SearchCosts(space, budget, latency), "macs"
        self.trials, self.done = trials, list[Trial]()
        self.batches: list[int] = []
        self._accuracy = accuracy

    def evaluate(self, rows: Genes) -> list[Trial]:
        left = self.trials - len(self.done)
        if not left:
            raise NoTrialsLeft
        self.batches.append(len(rows))
        found = []
        for row in rows[:left]:
            costs = {m: float(v[0]) for m, v in self.costs.of(row).items()}
            genes = tuple(int(g) for g in row)
            number = len(self.done) + len(found)
            found.append(Trial(number, genes, self._accuracy(row), 0.0, costs))
        self.done += found
        return found

    @property
    def best(self) -> Trial:
        """The most accurate within the limits."""
        fitting = [t for t in self.done if self.costs.within(np.array(t.genes))[0]]
        return max(fitting, key=lambda t: t.accuracy)
