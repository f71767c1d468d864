"""Agents on problems small enough to know the answer."""

from __future__ import annotations

from contextlib import suppress
from itertools import product

import numpy as np
import pytest
import torch

from billhook.allocate.budget import Budget
from billhook.errors import InputError
from billhook.search.agents.learn import learn
from billhook.search.agents.options import AGENTS, AgentOptions
from billhook.search.agents.walk import Walk
from billhook.search.space import Genes
from tests.search_candidates import Judged, NoTrialsLeft, mlp_space

SPACE = mlp_space()
GRID = np.array(list(product(range(4), repeat=3)))


class Known:
    """A table of all 64 candidates, every layer of which needs its width as much as chance has it."""

    def __init__(self, seed: int, trials: int = 300) -> None:
        rng = np.random.default_rng(seed)
        needs, noise = rng.uniform(0.05, 0.6, 3), rng.normal(0, 0.03, len(GRID))
        losses = np.array([1.0, 0.45, 0.15, 0.0])[GRID] @ needs
        self._table = dict(zip(map(tuple, GRID.tolist()), 1 - losses + noise, strict=True))
        self.judged = Judged(SPACE, self.accuracy, Budget(macs=0.5), trials)
        fitting = GRID[self.judged.costs.within(GRID)]
        self.best = max(self.accuracy(g) for g in fitting)

    def accuracy(self, genes: Genes) -> float:
        return float(self._table[tuple(int(g) for g in genes)])

    @property
    def found(self) -> bool:
        return self.judged.best.accuracy == self.best


def search(known: Known, seed: int, parallel: int = 1, **options: object) -> list[tuple[int, ...]]:
    """Return the candidates that an agent came to."""
    judged = known.judged
    with suppress(NoTrialsLeft):
        chosen = AgentOptions(**options)  # type: ignore[arg-type]
        learn(judged, chosen, "error", trials=judged.trials, parallel=parallel, seed=seed)
    return [t.genes for t in judged.done]


def at_random(known: Known, seed: int) -> None:
    """The control: the same wall, uniform actions."""
    rng, walk = np.random.default_rng(seed), Walk(known.judged)
    for _ in range(known.judged.trials):
        walk.begin()
        while not walk.done:
            walk.step(rng.random(1))
        known.judged.evaluate(walk.rows)
