from __future__ import annotations

import numpy as np
import pytest

from billhook.errors import InputError
from billhook.search.evolution.operators import (
    crossover_sbx,
    crossover_uniform,
    mutate_polynomial,
    mutate_uniform,
    pairs,
    without_repeats,
)


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_children_of_sbx_have_the_mean_of_their_parents() -> None:
    parents = _rng().random((400, 3))
    children = crossover_sbx(parents, _rng())
    np.testing.assert_allclose(children[0::2] + children[1::2], parents[0::2] + parents[1::2])


def test_the_spread_of_sbx_is_the_published_one() -> None:
    """β = |c1 - c2| / |p1 - p2|; P(β ≤ 1) = ½, and β^(η+1) is uniform below 1."""
    parents = np.tile([[0.25], [0.75]], (20_000, 1))
    children = crossover_sbx(parents, _rng(), eta=0.5, prob=1.0)
    beta = np.abs(children[0::2] - children[1::2])[:, 0] / 0.5
    assert (beta <= 1).mean() == pytest.approx(0.5, abs=0.02)
    below = beta[beta <= 1] ** 1.5
    assert np.quantile(below, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.02)
    above = beta[beta > 1] ** -1.5
    assert np.quantile(above, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.02)
    # Which child is on which side is chance.
    assert (children[0::2] < children[1::2]).mean() == pytest.approx(0.5, abs=0.02)


def test_genes_that_do_not_cross_over_stay() -> None:
    parents = _rng().random((2000, 5))
    assert (crossover_sbx(parents, _rng(), prob=0.0) == parents).all()
    assert (crossover_sbx(parents, _rng(), prob=0.5) == parents).mean() == pytest.approx(0.5, abs=0.03)
    equal = np.full((4, 3), 0.5)
    np.testing.assert_allclose(crossover_sbx(equal, _rng(), prob=1.0), equal)


def test_polynomial_mutation_stays_within_bounds_and_reaches_both_sides() -> None:
    low, high = np.array([0.3, 0.0, 0.5]), np.array([1.0, 0.4, 0.5])
    rows = np.tile([0.3, 0.2, 0.5], (5000, 1))
    moved = mutate_polynomial(rows, low, high, _rng(), eta=2.0, prob=1.0)
    assert ((moved >= low) & (moved <= high)).all()
    assert (moved[:, 2] == 0.5).all()  # no room to move
    assert (moved[:, 0] >= 0.3).all()
    assert ((moved[:, 1] - 0.2) > 0).mean() == pytest.approx(0.5, abs=0.03)


def test_polynomial_mutation_moves_one_gene_of_a_row_on_average_and_mostly_a_little() -> None:
    rows = np.full((4000, 8), 0.5)
    moved = mutate_polynomial(rows, np.zeros(8), np.ones(8), _rng())
    changed = moved != rows
    assert changed.sum(1).mean() == pytest.approx(1.0, abs=0.06)
    steps = np.abs(moved - rows)[changed]
    far = np.abs(mutate_polynomial(rows, np.zeros(8), np.ones(8), _rng(), eta=2.0) - rows)
    assert np.median(steps) < 0.06 < np.median(far[far > 0])


def test_uniform_mutation_takes_every_other_option_and_no_more() -> None:
    sizes = np.array([4, 2, 1])
    rows = np.tile([3, 0, 0], (6000, 1))
    moved = mutate_uniform(rows, sizes, _rng(), 1.0)
    counts = np.bincount(moved[:, 0], minlength=4)
    assert counts[3] == 0  # the offset is never 0
    assert counts[:3] == pytest.approx([2000] * 3, abs=150)
    assert (moved[:, 1] == 1).all()
    assert (moved[:, 2] == 0).all()
    few = mutate_uniform(rows, sizes, _rng(), 0.1)
    assert (few[:, 0] != 3).mean() == pytest.approx(0.1, abs=0.02)


def test_uniform_crossover_picks_every_gene_from_one_parent() -> None:
    sizes = np.full(6, 30)
    parents = _rng().integers(0, 30, (4000, 6))
    first, second = parents[0::2], parents[1::2]
    children = crossover_uniform(parents, sizes, _rng())
    assert ((children == first) | (children == second)).all()
    different = first != second
    assert (children == second)[different].mean() == pytest.approx(0.5, abs=0.03)
    assert (crossover_uniform(parents, sizes, _rng(), 0.0) == first).all()


def test_parents_come_in_pairs_of_two() -> None:
    chosen = pairs(3000, 4, _rng()).reshape(-1, 2)
    assert (chosen[:, 0] != chosen[:, 1]).all()
    for column in chosen.T:
        assert np.bincount(column, minlength=4) == pytest.approx([750] * 4, abs=100)
    assert pairs(2, 1, _rng()).tolist() == [0, 0, 0, 0]
    with pytest.raises(InputError, match="pairs of parents, got 3"):
        crossover_sbx(np.zeros((3, 1)), _rng())
    with pytest.raises(InputError, match="pairs of parents, got 3"):
        crossover_uniform(np.zeros((3, 1), dtype=np.int64), np.array([1]), _rng())


def test_genes_without_such_an_option_are_refused() -> None:
    with pytest.raises(InputError, match="below its number of options"):
        mutate_uniform(np.array([[2]]), np.array([2]), _rng())


def test_repeats_leave_and_the_order_stays() -> None:
    rows = np.array([[1, 2], [0, 0], [1, 2], [3, 3], [0, 0]])
    assert without_repeats(rows).tolist() == [[1, 2], [0, 0], [3, 3]]
    assert without_repeats(rows, [(0, 0)]).tolist() == [[1, 2], [3, 3]]
