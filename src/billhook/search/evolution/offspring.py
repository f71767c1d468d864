"""`Bounds`: the part of a space that evolution stays in; `offspring`: children of a population in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from billhook.search.evolution.operators import (
    crossover_sbx,
    mutate_polynomial,
    pairs,
    without_repeats,
)
from billhook.search.space import Floats, Genes, Space

Allowed = Callable[[Genes], npt.NDArray[np.bool_]]

_TINY = 1e-9


@dataclass(frozen=True, eq=False)
class Bounds:
    """A box of genes.

    Attributes:
        space: What the genes mean.
        low: Lower bound of each gene: [genes].
        high: Upper bound of each gene: [genes].
    """

    space: Space
    low: Genes
    high: Genes

    @classmethod
    def above(cls, space: Space, least: Callable[[int], float]) -> Bounds:
        """Return the box of all values of at least a fraction of the whole.

        Args:
            space: The whole space.
            least: Number of a gene → that fraction; a gene without so large a value keeps its largest.
        """
        fractions = space.fractions(np.arange(int(space.sizes.max()))[:, None].clip(max=space.highest))
        wanted = np.array([least(i) for i in range(len(space.genes))])
        low = np.minimum((fractions < wanted - _TINY).sum(0), space.highest)
        return cls(space, low.astype(np.int64), space.highest)

    def snap(self, fractions: Floats) -> Genes:
        """Return the nearest genes in the box: [rows, genes]."""
        return np.clip(self.space.nearest(fractions), self.low, self.high)

    def random(self, rng: np.random.Generator, rows: int) -> Genes:
        """Return rows in which every value of a gene is as likely: [rows, genes]."""
        return rng.integers(self.low, self.high + 1, size=(rows, len(self.low)), dtype=np.int64)

    def lowered(self, row: Genes, allowed: Allowed, rng: np.random.Generator) -> Genes:
        """Return the row if it is allowed, else one of those on a random way down to the low corner.

        Each of them is as likely, so that what comes out lies at all costs up to the limit. The corner itself
        must be allowed.
        """
        if allowed(row[None])[0]:
            return row
        steps = rng.permutation(np.repeat(np.arange(len(row)), row - self.low))
        way = row - np.cumsum(np.eye(len(row), dtype=np.int64)[steps], axis=0)
        chosen: Genes = way[rng.choice(np.flatnonzero(allowed(way)))]
        return chosen


def offspring(
    parents: Genes,
    count: int,
    bounds: Bounds,
    rng: np.random.Generator,
    *,
    known: Iterable[tuple[int, ...]] = (),
    allowed: Allowed | None = None,
    crossover_eta: float = 0.5,
    crossover_prob: float = 0.5,
    mutation_eta: float = 15.0,
    tries: int = 16,
) -> Genes:
    """Return up to `count` children of pairs drawn from the parents; [rows, genes], within the bounds.

    Crossover and mutation work on fractions, which are then snapped to the values of each gene. Children that
    repeat a parent or each other are drawn again, and those that are not allowed. Fewer come back if so many
    new ones are not found; a population that fills its space has none.

    Args:
        parents: [rows, genes].
        count: How many are wanted.
        bounds: What children stay in.
        rng: All chance.
        known: More rows that no child may repeat.
        allowed: Which of [rows, genes] may live; None: all.
        crossover_eta: See `crossover_sbx`.
        crossover_prob: The same.
        mutation_eta: See `mutate_polynomial`.
        tries: How many times as many children are drawn at most.
    References:
        Liu et al., "Joint Channel and Weight Pruning for Model Acceleration on Mobile Devices", 2021, section
        3.4 (parameters as in its code). arXiv:2110.08013.
    Differs from the source:
        Its code lets the repeats of the last try live.
    """
    space = bounds.space
    low, high = space.fractions(bounds.low)[0], space.fractions(bounds.high)[0]
    seen = {*known, *map(tuple, parents.tolist())}
    found = parents[:0]
    for _ in range(tries):
        if len(found) >= count:
            break
        chosen = pairs(-(-count // 2), len(parents), rng)
        crossed = crossover_sbx(space.fractions(parents[chosen]), rng, eta=crossover_eta, prob=crossover_prob)
        snapped = space.fractions(bounds.snap(crossed))
        new = bounds.snap(mutate_polynomial(snapped, low, high, rng, eta=mutation_eta))
        new = without_repeats(new, seen)
        if allowed is not None and len(new):
            new = new[allowed(new)]
        seen |= set(map(tuple, new.tolist()))
        found = np.concatenate([found, new])
    return found[:count]
