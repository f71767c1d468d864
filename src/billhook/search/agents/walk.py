"""A walk over the genes, several side by side: what an episode is, apart from any library for agents."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from billhook.errors import BudgetError
from billhook.search.agents.features import FEATURES, LAST, REDUCED, features_of
from billhook.search.agents.wall import behind_wall
from billhook.search.costs import SearchCosts
from billhook.search.space import Genes, Space
from billhook.search.studies.trial import Trial

Observations = npt.NDArray[np.float32]


class Candidates(Protocol):
    """What an environment needs of a session."""

    space: Space
    costs: SearchCosts
    metric: str

    def evaluate(self, rows: Genes) -> list[Trial]:
        """Return what candidates are worth, in their order."""
        ...


class Walk:
    """Episodes that decide one gene after the other, in step.

    Args:
        candidates: Space, costs and limits.
        episodes: How many run side by side.
    Attributes:
        rows: What is decided so far; the rest is at its lowest: [episodes, genes].
        length: Steps of an episode.
        at: The next step.
    Raises:
        BudgetError: if not even the lowest values of all genes keep the budget.
    """

    def __init__(self, candidates: Candidates, episodes: int = 1) -> None:
        space, costs, metric = candidates.space, candidates.costs, candidates.metric
        costs.require_reachable()
        if not costs.within(space.lowest)[0]:
            raise BudgetError("the smallest candidate is beyond the budget", {})
        self._space, self._costs, self._metric = space, costs, metric
        self._features = features_of(space, costs, metric)
        self._fractions = [np.array(g.values) / g.full for g in space.genes]
        self._episodes = episodes
        self.length = len(space.genes)
        self.begin()

    def begin(self) -> Observations:
        """Start new episodes; return what they see: [episodes, 11]."""
        self.rows: Genes = np.tile(self._space.lowest, (self._episodes, 1))
        self.at, self._last = 0, np.ones(self._episodes)
        return self._seen()

    def step(self, actions: npt.ArrayLike) -> Observations:
        """Decide the next gene of all episodes; return what is seen then.

        Args:
            actions: The fraction to keep of each, from 0 to 1: [episodes]. It becomes the nearest value that
                the gene has and that the wall lets through.
        """
        gene = int(self._features.order[self.at])
        fractions = self._fractions[gene]
        middles = (fractions[1:] + fractions[:-1]) / 2  # ties go up, as in `Space.nearest`
        wanted = np.searchsorted(middles, np.asarray(actions, dtype=np.float64).ravel(), side="right")
        self.rows[:, gene] = behind_wall(self._costs, self.rows, gene, wanted.astype(np.int64))
        self._last = fractions[self.rows[:, gene]]
        self.at += 1
        return self._seen()

    @property
    def done(self) -> bool:
        """True after the last gene."""
        return self.at == self.length

    def _seen(self) -> Observations:
        """Return the features of the gene whose turn it is; after the last, of the last."""
        seen = np.tile(self._features.table[min(self.at, self.length - 1)], (self._episodes, 1))
        costs = self._costs.of(self.rows, (self._metric,))[self._metric]
        seen[:, REDUCED] = 1 - costs / self._costs.original[self._metric]
        seen[:, LAST] = self._last
        assert seen.shape[1] == len(FEATURES)
        found: Observations = np.clip(seen, 0, 1).astype(np.float32)
        return found
