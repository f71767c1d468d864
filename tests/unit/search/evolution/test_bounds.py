"""Boxes of genes, and ways from their rows to those within a budget."""

from __future__ import annotations

import numpy as np
import pytest

from billhook.search.costs import SearchCosts
from billhook.search.evolution.bounds import Allowed, Bounds
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


@pytest.fixture(scope="module")
def cheap(space: Space) -> Allowed:
    """Return which rows have at most 0.6 of the MACs; densities cost nothing."""
    costs = SearchCosts(space)
    return lambda rows: costs.of(rows, ("macs",))["macs"] <= 0.6 * costs.original["macs"]


def test_lowered_rows_are_within_the_limit_and_the_bounds_and_just_so(space: Space, cheap: Allowed) -> None:
    bounds = _bounds(space, 0.25)
    assert (bounds.lowered(bounds.low, cheap, _rng()) == bounds.low).all()
    for seed in range(20):
        row = bounds.random(_rng(seed), 1)[0]
        found = bounds.lowered(row, cheap, _rng(seed))
        assert cheap(found[None])[0]
        assert ((found >= bounds.low) & (found <= row)).all()
        one_more = found + np.eye(len(row), dtype=np.int64)[found < row]
        assert (found == row).all() or not cheap(one_more).all(), "lowered further than needed"
    assert len({tuple(bounds.lowered(bounds.high, cheap, _rng(seed))) for seed in range(5)}) == 5


def test_from_raised_rows_no_gene_can_be_raised(space: Space, cheap: Allowed) -> None:
    bounds = _bounds(space, 0.25)
    asked: list[int] = []

    def counted(rows: np.ndarray) -> np.ndarray:
        asked.append(len(rows))
        return cheap(rows)

    for seed in range(20):
        row = bounds.lowered(bounds.random(_rng(seed), 1)[0], cheap, _rng(seed))
        asked.clear()
        found = bounds.raised(row, counted, _rng(seed))
        assert cheap(found[None])[0]
        assert ((found >= row) & (found <= bounds.high)).all()
        more = found + np.eye(len(row), dtype=np.int64)[found < bounds.high]
        assert not cheap(more).any()
        assert len(asked) <= len(row)
    assert (bounds.raised(bounds.low, lambda rows: np.ones(len(rows), bool), _rng()) == bounds.high).all()
