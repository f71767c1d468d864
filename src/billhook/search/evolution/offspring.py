"""`offspring`: the children of a population."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from billhook.search.evolution.bounds import Bounds
from billhook.search.evolution.operators import (
    crossover_sbx,
    mutate_polynomial,
    pairs,
    without_repeats,
)
from billhook.search.space import Genes


def offspring(
    parents: Genes,
    count: int,
    bounds: Bounds,
    rng: np.random.Generator,
    *,
    known: Iterable[tuple[int, ...]] = (),
    repair: Callable[[Genes], Genes] | None = None,
    crossover_eta: float = 0.5,
    crossover_prob: float = 0.5,
    mutation_eta: float = 15.0,
    tries: int = 16,
) -> Genes:
    """Return up to `count` children of pairs drawn from the parents; [rows, genes], within the bounds.

    Crossover and mutation work on fractions, which are then snapped to the values of each gene. Children that
    repeat a parent or each other are drawn again. Fewer come back if so many new ones are not found; a
    population that fills its space has none.

    Args:
        parents: [rows, genes].
        count: How many are wanted.
        bounds: What children stay in.
        rng: All chance.
        known: More rows that no child may repeat.
        repair: Makes a row fit a budget before it is looked at; None: all rows fit.
        crossover_eta: See `crossover_sbx`.
        crossover_prob: The same.
        mutation_eta: See `mutate_polynomial`.
        tries: How many times as many children are drawn at most.
    References:
        Zhao et al., "Joint Channel and Weight Pruning for Model Acceleration on Mobile Devices", 2021,
        section 3.4 (parameters as in its code). arXiv:2110.08013.
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
        if repair is not None:
            new = np.stack([repair(row) for row in new])
        new = without_repeats(new, seen)
        seen |= set(map(tuple, new.tolist()))
        found = np.concatenate([found, new])
    return found[:count]
