"""Children and first populations stay where they may be."""

from __future__ import annotations

import numpy as np
import pytest

from billhook.search.costs import SearchCosts
from billhook.search.evolution.offspring import Bounds, offspring
from billhook.search.space import Space
from tests.search import problem


@pytest.fixture(scope="module")
def space() -> Space:
    return problem("residual", round_to=1, pattern="4x1|dense").space


def _bounds(space: Space, least: float = 0.5) -> Bounds:
    return Bounds.above(space, lambda _: least)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_bounds_are_the_first_values_of_at_least_a_fraction(space: Space) -> None:
    bounds = Bounds.above(space, lambda i: 0.5 if space.genes[i].kind == "channels" else 0.3)
    for gene, low, high in zip(space.genes, bounds.low, bounds.high, strict=True):
        least = 0.5 * gene.full if gene.kind == "channels" else 0.3
        assert gene.values[low] >= least - 1e-9
        assert low == 0 or gene.values[low - 1] < least
        assert gene.values[high] == gene.full
    assert (Bounds.above(space, lambda _: 0.0).low == 0).all()
    assert (Bounds.above(space, lambda _: 1.0).low == space.highest).all()


def test_random_rows_take_every_value_in_the_bounds_and_no_other(space: Space) -> None:
    bounds = _bounds(space)
    rows = bounds.random(_rng(), 3000)
    for column, low, high in zip(rows.T, bounds.low, bounds.high, strict=True):
        assert np.unique(column).tolist() == list(range(low, high + 1))


def test_children_are_new_all_different_and_within_the_bounds(space: Space) -> None:
    bounds = _bounds(space)
    parents = bounds.random(_rng(), 12)
    for seed in range(10):
        children = offspring(parents, 20, bounds, _rng(seed))
        assert len(children) == 20
        assert ((children >= bounds.low) & (children <= bounds.high)).all()
        assert len(np.unique(np.concatenate([parents, children]), axis=0)) == 32
        parents = children[:12]


def test_children_inherit(space: Space) -> None:
    """With few mutations and no spread, a child has each gene from near its parents."""
    bounds = _bounds(space, 0.0)
    parents = np.stack([bounds.low, bounds.high])
    children = offspring(parents, 30, bounds, _rng(), crossover_eta=1e6, mutation_eta=1e6)
    assert ((children == bounds.low) | (children == bounds.high)).all()


def test_only_what_is_allowed_is_born(space: Space) -> None:
    bounds = _bounds(space, 0.0)
    costs = SearchCosts(space)
    half = 0.5 * costs.original["macs"]

    def cheap(rows: np.ndarray) -> np.ndarray:
        return costs.of(rows, ("macs",))["macs"] <= half

    parents = np.stack([bounds.lowered(r, cheap, _rng(i)) for i, r in enumerate(bounds.random(_rng(), 20))])
    assert cheap(parents).all()
    children = offspring(parents, 20, bounds, _rng(), allowed=cheap)
    assert cheap(children).all()
    assert len(children) >= 10


def test_rows_are_lowered_to_all_costs_below_the_limit_and_allowed_ones_stay(space: Space) -> None:
    bounds = _bounds(space, 0.25)
    costs = SearchCosts(space)
    limit = 0.6 * costs.original["macs"]

    def cheap(rows: np.ndarray) -> np.ndarray:
        return costs.of(rows, ("macs",))["macs"] <= limit

    assert (bounds.lowered(bounds.low, cheap, _rng()) == bounds.low).all()
    rows = np.stack([bounds.lowered(bounds.high, cheap, _rng(seed)) for seed in range(60)])
    assert cheap(rows).all()
    assert (rows >= bounds.low).all()
    found = costs.of(rows, ("macs",))["macs"]
    least = costs.of(bounds.low, ("macs",))["macs"][0]
    assert found.min() < least + 0.25 * (limit - least)
    assert found.max() > least + 0.75 * (limit - least)


def test_a_population_that_fills_its_space_has_few_children_or_none(space: Space) -> None:
    box = Bounds(space, space.highest - (np.arange(len(space.genes)) == 0), space.highest)
    both = np.stack([box.low, box.high])
    assert len(offspring(both, 5, box, _rng())) == 0
    assert offspring(both[:1], 5, box, _rng(), mutation_eta=0.0).tolist() == both[1:].tolist()


def test_the_same_seed_gives_the_same_children(space: Space) -> None:
    bounds = _bounds(space)
    parents = bounds.random(_rng(), 8)
    assert (offspring(parents, 8, bounds, _rng(1)) == offspring(parents, 8, bounds, _rng(1))).all()
    assert (offspring(parents, 8, bounds, _rng(1)) != offspring(parents, 8, bounds, _rng(2))).any()
