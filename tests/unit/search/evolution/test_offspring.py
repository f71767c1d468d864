"""Children stay where they may be, and are new."""

from __future__ import annotations

import numpy as np
import pytest

from billhook.search.evolution.bounds import Bounds
from billhook.search.evolution.offspring import offspring
from billhook.search.space import Space
from tests.search import problem


@pytest.fixture(scope="module")
def space() -> Space:
    return problem("residual", round_to=1, pattern="4x1|dense").space


def _bounds(space: Space, least: float = 0.5) -> Bounds:
    return Bounds.above(space, lambda _: least)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


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


def test_what_does_not_fit_is_repaired_before_it_is_compared(space: Space) -> None:
    bounds = _bounds(space, 0.0)
    parents = bounds.random(_rng(), 6)
    children = offspring(parents, 6, bounds, _rng(), repair=lambda row: np.minimum(row, space.highest // 2))
    assert (children <= space.highest // 2).all()
    assert len(np.unique(children, axis=0)) == 6
    assert len(offspring(parents, 6, bounds, _rng(), repair=lambda row: parents[0])) == 0


def test_rows_that_are_known_are_not_born_again(space: Space) -> None:
    bounds = _bounds(space)
    parents = bounds.random(_rng(), 6)
    first = {tuple(row) for row in offspring(parents, 6, bounds, _rng(1)).tolist()}
    again = {tuple(row) for row in offspring(parents, 6, bounds, _rng(1), known=first).tolist()}
    assert len(again) == 6
    assert not again & first


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
