from __future__ import annotations

import numpy as np
import pytest

from billhook.errors import InputError
from billhook.search.pareto import crowding, dominance, front, fronts, hypervolume, hypervolumes


def _random(rows: int, columns: int, seed: int, levels: int = 9) -> np.ndarray:
    """Return costs on a coarse grid, so that there are ties and equal rows."""
    return np.random.default_rng(seed).integers(0, levels, size=(rows, columns)).astype(float)


def _beats(a: np.ndarray, b: np.ndarray) -> bool:
    return all(a <= b) and any(a < b)


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_dominance_and_fronts_are_those_of_the_definition(columns: int) -> None:
    for seed in range(10):
        costs = _random(25, columns, seed)
        expected = [[_beats(a, b) for b in costs] for a in costs]
        assert dominance(costs).tolist() == expected
        left, ranks = set(range(len(costs))), []
        while left:
            best = {i for i in left if not any(expected[j][i] for j in left)}
            ranks.append(sorted(best))
            left -= best
        assert [f.tolist() for f in fronts(costs)] == ranks
        assert front(costs).tolist() == ranks[0]


def test_there_may_be_no_rows() -> None:
    empty = np.zeros((0, 2))
    assert fronts(empty) == []
    assert len(front(empty)) == len(crowding(empty)) == len(hypervolumes(empty, (1, 1))) == 0
    assert hypervolume(empty, (1, 1)) == 0


def test_a_trial_that_failed_is_dominated_and_nan_is_refused() -> None:
    assert front([[np.inf, 1.0], [0.5, 2.0], [0.4, 1.0]]).tolist() == [2]
    with pytest.raises(InputError, match="row 1 are NaN"):
        front([[0.0, 0.0], [np.nan, 1.0]])


def test_crowding_by_hand() -> None:
    # Sorted by the first cost: 0, 1, 4, 10; by the second: 8, 6, 4, 0.
    costs = [[1, 6], [10, 0], [0, 8], [4, 4]]
    expected = [4 / 10 + 4 / 8, np.inf, np.inf, 9 / 10 + 6 / 8]
    assert crowding(costs) == pytest.approx(expected)


def test_every_row_between_the_ends_has_room() -> None:
    """The second of the sorted rows too, which the published code forgets."""
    line = np.arange(6.0)
    assert crowding(np.stack([line, -line], 1))[1:5] == pytest.approx([4 / 5] * 4)


def test_a_cost_without_a_range_says_nothing_and_infinite_costs_are_no_problem() -> None:
    assert crowding([[3, 0], [3, 5], [3, 1]]) == pytest.approx([np.inf, np.inf, 1.0])
    assert crowding([[3, 3], [3, 3], [3, 3]]) == pytest.approx([np.inf, 0, np.inf])
    assert not np.isnan(crowding([[0, 3], [1, 2], [np.inf, 1]])).any()


def test_hypervolume_by_hand() -> None:
    # Steps: (5 - 1) wide from 3 to 4 high, (5 - 2) wide from 1 to 3.
    assert hypervolume([[1, 3], [2, 1]], (5, 4)) == 4 * 1 + 3 * 2
    assert hypervolume([[1, 3], [2, 1], [2, 1], [3, 3], [1, 9], [7, 0]], (5, 4)) == 10
    assert hypervolume([[5, 0], [0, 4]], (5, 4)) == 0


def test_hypervolume_counts_the_cells_that_are_dominated() -> None:
    """On a grid of whole numbers, the area is the number of unit cells that some row dominates."""
    for seed in range(20):
        costs = _random(15, 2, seed, levels=14)
        cells = [(x, y) for x in range(11) for y in range(10)]
        expected = sum(any(a <= x and b <= y for a, b in costs) for x, y in cells)
        assert hypervolume(costs, (11, 10)) == expected


def test_the_hypervolume_of_a_growing_list_is_that_of_every_beginning() -> None:
    for seed in range(20):
        costs = _random(30, 2, seed, levels=14)
        found = hypervolumes(costs, (11, 10))
        assert found == pytest.approx([hypervolume(costs[: i + 1], (11, 10)) for i in range(len(costs))])
        assert (np.diff(found) >= 0).all()


def test_hypervolume_is_for_two_costs_and_a_finite_reference() -> None:
    with pytest.raises(InputError, match="it is for two"):
        hypervolume(np.zeros((3, 3)), (1, 1))
    with pytest.raises(InputError, match="not finite"):
        hypervolume(np.zeros((3, 2)), (1, np.inf))
