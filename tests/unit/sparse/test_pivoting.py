from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from billhook.sparse._assignment import assign
from billhook.sparse.pivoting import (
    Pivoting,
    best_rows,
    block_sizes,
    greedy_pivot,
    kept_energy,
    pivot,
    random_partition,
    refine,
)


def planted(
    rows: int, columns: int, blocks: int, seed: int, *, density: float = 1.0, noise: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a matrix that is block-diagonal in another order, and the partitions."""
    rng = np.random.default_rng(seed)
    r, c = random_partition(rows, blocks, [seed, 1]), random_partition(columns, blocks, [seed, 2])
    inside = (r[:, None] == c[None, :]) & (rng.random((rows, columns)) < density)
    return inside * rng.uniform(0.1, 1, inside.shape) + noise * rng.random(inside.shape), r, c


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))


@pytest.mark.parametrize(
    ("rows", "columns", "blocks", "density", "noise"),
    [
        (8, 8, 2, 1.0, 0.0),
        (64, 48, 4, 1.0, 0.0),
        (48, 96, 8, 1.0, 0.0),
        (64, 64, 4, 0.5, 0.05),
        (128, 64, 4, 0.3, 0.0),
        (64, 64, 64, 1.0, 0.0),
    ],
)
def test_a_planted_block_diagonal_is_found_whole(
    rows: int, columns: int, blocks: int, density: float, noise: float
) -> None:
    for seed in range(3):
        a, r, c = planted(rows, columns, blocks, seed, density=density, noise=noise)
        found = pivot(a, blocks)
        assert found.energy == pytest.approx(kept_energy(a, r, c))
        assert same_partition(found.rows, r)
        assert same_partition(found.columns, c)
        if not noise:
            assert found.energy == pytest.approx(a.sum())


def test_permuted_back_the_planted_matrix_has_its_blocks_on_the_diagonal() -> None:
    a, _, _ = planted(12, 20, 4, seed=5)
    found = pivot(a, 4)
    p_row, p_column = np.eye(12)[np.argsort(found.rows)].T, np.eye(20)[np.argsort(found.columns)].T
    ordered = p_row.T @ a @ p_column
    assert np.allclose(ordered, a[np.argsort(found.rows)][:, np.argsort(found.columns)])
    on_diagonal = np.kron(np.eye(4), np.ones((3, 5))).astype(bool)
    assert (ordered[~on_diagonal] == 0).all()
    assert (ordered[on_diagonal] > 0).all()


def test_gather_blocks_scatter_is_the_matrix_product() -> None:
    a, rows, columns = planted(12, 8, 4, seed=6)
    x = np.random.default_rng(0).standard_normal(8)
    row_order, column_order = np.argsort(rows, kind="stable"), np.argsort(columns, kind="stable")
    blocks = a[row_order][:, column_order]
    assert np.allclose((blocks @ x[column_order])[np.argsort(row_order)], a @ x)


@pytest.mark.parametrize("blocks", [2, 4, 8])
def test_refining_keeps_more_than_greedy_and_greedy_more_than_chance(blocks: int) -> None:
    for seed in range(5):
        a = np.random.default_rng(seed).standard_normal((64, 48)) ** 2
        greedy = greedy_pivot(a, blocks)
        refined, best = refine(a, greedy, blocks), pivot(a, blocks)
        by_chance = [
            kept_energy(
                a, random_partition(64, blocks, [seed, i]), random_partition(48, blocks, [seed, i, 1])
            )
            for i in range(20)
        ]
        assert best.energy >= refined.energy * (1 - 1e-12)  # it is scaled while it is searched
        assert refined.energy >= greedy.energy > max(by_chance)
        assert refined.energy > greedy.energy * 1.005
        assert np.mean(by_chance) == pytest.approx(a.sum() / blocks, rel=0.05)
        for found in (greedy, refined, best):
            assert found.energy == pytest.approx(kept_energy(a, found.rows, found.columns))


def test_no_exchange_of_two_rows_or_columns_improves_what_was_found() -> None:
    a = np.random.default_rng(3).random((24, 18)) ** 2
    found = pivot(a, 3)
    for axis, partition in enumerate((found.rows, found.columns)):
        for i in range(len(partition)):
            for j in range(i):
                swapped = partition.copy()
                swapped[[i, j]] = swapped[[j, i]]
                parts = (swapped, found.columns) if axis == 0 else (found.rows, swapped)
                assert kept_energy(a, *parts) <= found.energy + 1e-9


@pytest.mark.parametrize(("rows", "columns", "blocks"), [(10, 7, 4), (7, 7, 3), (2, 2, 2), (65, 130, 64)])
def test_blocks_are_balanced_where_they_do_not_divide(rows: int, columns: int, blocks: int) -> None:
    a = np.random.default_rng(0).random((rows, columns))
    for found in (greedy_pivot(a, blocks), pivot(a, blocks)):
        assert np.bincount(found.rows, minlength=blocks).tolist() == block_sizes(rows, blocks).tolist()
        assert np.bincount(found.columns, minlength=blocks).tolist() == block_sizes(columns, blocks).tolist()
    assert block_sizes(10, 4).tolist() == [3, 3, 2, 2]


def test_rows_follow_given_columns() -> None:
    a, rows, columns = planted(32, 16, 4, seed=1)
    found = best_rows(a, columns, 4)
    assert (found.rows == rows).all()
    assert found.energy == pytest.approx(a.sum())


def test_the_same_seed_finds_the_same_and_more_restarts_find_no_less() -> None:
    a = np.random.default_rng(4).random((40, 40)) ** 4
    few, many = pivot(a, 4, restarts=1), pivot(a, 4, restarts=12)
    assert many.energy >= few.energy
    again = pivot(a, 4, restarts=12)
    assert (again.rows == many.rows).all()
    assert (again.columns == many.columns).all()
    assert pivot(7 * a, 4, restarts=12).energy == pytest.approx(7 * many.energy)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e300, 1e-300, np.nan, np.inf])
def test_a_matrix_that_says_nothing_is_split_all_the_same(value: float) -> None:
    found = pivot(np.full((12, 9), value), 3)
    assert np.bincount(found.rows).tolist() == [4, 4, 4]
    assert np.bincount(found.columns).tolist() == [3, 3, 3]


def test_single_numbers_that_are_not_finite_do_no_harm() -> None:
    a, rows, columns = planted(16, 16, 4, seed=2)
    hole, peak = np.argwhere(rows[:, None] == columns[None, :])[[3, 7]]
    a[tuple(hole)], a[tuple(peak)] = np.nan, np.inf
    found = pivot(a, 4)
    assert same_partition(found.rows, rows)
    assert np.isfinite(found.energy)


def test_the_assignment_is_the_best_one_there_is() -> None:
    rng = np.random.default_rng(0)
    for trial in range(60):
        blocks = int(rng.integers(2, 7))
        rows = int(rng.integers(blocks, 40))
        ties = trial % 2
        profit = rng.integers(0, 4, (rows, blocks)) * 1.0 if ties else rng.standard_normal((rows, blocks))
        sizes = block_sizes(rows, blocks)
        block = assign(profit, sizes)
        slots = np.repeat(np.arange(blocks), sizes)
        best = profit[:, slots][linear_sum_assignment(profit[:, slots], maximize=True)].sum()
        assert np.bincount(block, minlength=blocks).tolist() == sizes.tolist()
        assert profit[np.arange(rows), block].sum() == pytest.approx(best)


def test_refining_never_loses_what_it_started_with() -> None:
    a, rows, columns = planted(20, 20, 4, seed=8)
    start = Pivoting(rows, columns, kept_energy(a, rows, columns))
    assert refine(a, start, 4).energy == pytest.approx(a.sum())


@pytest.mark.serial
def test_large_matrices_take_about_a_second() -> None:
    a = np.random.default_rng(0).standard_normal((512, 512)) ** 2
    start = time.perf_counter()
    pivot(a, 8)
    assert time.perf_counter() - start < 5  # 0.1 s on an idle core
