"""MetaPruning's evolution: the best candidates so far have children, nobody is evaluated twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from billhook.search.costs import SearchCosts
from billhook.search.evolution.operators import crossover_uniform, mutate_uniform, pairs, without_repeats
from billhook.search.space import Genes
from billhook.search.studies.trial import Trial, by_accuracy

_ROUNDS = 10  # of draws until a generation is full
_PAPER = 50, 21  # candidates of a generation, generations: the first one and 20 more


class Evolution:
    """Proposes generations of candidates that keep all limits and have not been proposed before.

    A mutation makes any other value of a gene, as in the source: from the largest to the smallest too.

    Args:
        costs: Of candidates, with the limits.
        population: Candidates of a generation.
        parents: So many of the best candidates of all generations have children.
        probability: Of each gene to mutate.
        seed: Of every draw.
    References:
        Liu et al., "MetaPruning", ICCV 2019, section 3.2 and algorithm 1. arXiv:1903.10258.
    Differs from the source:
        Random candidates use the budget up (`SearchCosts.fitted`) instead of only keeping it.
    """

    def __init__(
        self, costs: SearchCosts, *, population: int, parents: int, probability: float, seed: int
    ) -> None:
        self._costs, self._sizes = costs, costs.space.sizes
        self._population, self._count, self._probability = population, parents, probability
        self._rng = np.random.default_rng(seed)
        self._known: set[tuple[int, ...]] = set()

    def first(self) -> Genes:
        """Return random candidates: [rows, genes]."""
        return self._new(self._population, self._random)

    def next(self, trials: Sequence[Trial]) -> Genes:
        """Return the generation that follows from everything evaluated so far; empty if nothing is new.

        Half of it are mutated parents, half children of two; where those are known or over a limit, random
        candidates take their places.
        """
        parents = fittest(trials, self._count)
        rng, half = self._rng, self._population // 2

        def mutated(count: int) -> Genes:
            chosen = parents[rng.integers(len(parents), size=count)]
            return mutate_uniform(chosen, self._sizes, rng, self._probability)

        def crossed(count: int) -> Genes:
            return crossover_uniform(parents[pairs(count, len(parents), rng)], self._sizes, rng)

        children = np.concatenate([self._new(half, mutated), self._new(self._population - half, crossed)])
        return np.concatenate([children, self._new(self._population - len(children), self._random)])

    def _random(self, count: int) -> Genes:
        drawn = self._costs.space.random(self._rng, count)
        return np.array([self._costs.fitted(row, self._rng) for row in drawn], dtype=np.int64)

    def _new(self, wanted: int, make: Callable[[int], Genes]) -> Genes:
        """Return up to `wanted` of what `make` makes, and remember them."""
        found: list[Genes] = []
        for _ in range(_ROUNDS):
            if len(found) == wanted:
                break
            rows = make(wanted - len(found))
            rows = without_repeats(rows[self._costs.within(rows)], self._known)
            self._known.update(map(tuple, rows.tolist()))
            found += list(rows)
        return np.array(found, dtype=np.int64).reshape(-1, len(self._sizes))


def fittest(trials: Sequence[Trial], count: int) -> Genes:
    """Return the genes of the most accurate trials, the best first; of equals, those of lower loss first."""
    return np.array([t.genes for t in sorted(trials, key=by_accuracy)[:count]], dtype=np.int64)


def scaled_population(trials: int) -> int:
    """Return the candidates of a generation: the paper's 50 for its 1,050 trials, fewer for fewer trials.

    The number of generations shrinks by the same factor.
    """
    size, generations = _PAPER
    scale: float = (trials / (size * generations)) ** 0.5
    return max(4, min(size, round(size * scale)))
