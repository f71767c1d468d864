from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from billhook.allocate.costs import Work
from billhook.allocate.descent import descent
from tests.unit.allocate.blocks import INNER, TRUNK, blocks, drawn

BRANCHES = [(1,), (2,), (3,)]


def _worth(scores: list[np.ndarray], counts: np.ndarray) -> float:
    return sum(float(np.sort(s)[::-1][:n].sum()) for s, n in zip(scores, counts, strict=True))


def _best(scores: list[np.ndarray], trunks: range, work: Work, bound: float) -> float:
    """Return the most score that any network within the bound keeps."""
    rows = np.array(list(product(trunks, *(range(n + 1) for n in INNER))))
    rows = rows[blocks(scores).costs.work(rows, work) <= bound + 1e-9]
    return max(_worth(scores, row) for row in rows)


@pytest.mark.parametrize("seed", range(8))
def test_no_other_network_of_the_same_work_keeps_more_where_costs_add_up(seed: int) -> None:
    scores = drawn(seed)
    space = blocks(scores, trunk_stays=True)
    way = descent(space, scores, BRANCHES, Work())
    for counts, work in zip(way, space.costs.work(way, Work()), strict=True):
        best = _best(scores, range(TRUNK, TRUNK + 1), Work(), work)
        assert _worth(scores, counts) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("overhead", [0.0, 20.0, 100.0])
def test_the_way_is_near_the_best_where_they_do_not(seed: int, overhead: float) -> None:
    scores, work = drawn(seed), Work(per_layer=overhead)
    space = blocks(scores)
    way = descent(space, scores, BRANCHES, work)
    total = _worth(scores, way[0])
    gaps = []
    for counts, used in zip(way, space.costs.work(way, work), strict=True):
        gaps.append((_best(scores, range(1, TRUNK + 1), work, used) - _worth(scores, counts)) / total)
    assert max(gaps) <= 0.25
    assert np.mean(gaps) <= 0.08


@pytest.mark.parametrize("overhead", [0.0, 50.0])
def test_networks_are_nested_from_full_to_nothing_but_the_trunk(overhead: float) -> None:
    way = descent(blocks(drawn(0)), drawn(0), BRANCHES, Work(per_layer=overhead))
    assert way[0].tolist() == [TRUNK, *INNER]
    assert way[-1].tolist() == [1, 0, 0, 0]
    assert (np.diff(way, axis=0) <= 0).all()
    assert (np.diff(way, axis=0) < 0).any(axis=1).all()


def test_without_branches_one_unit_of_each_stays() -> None:
    assert descent(blocks(drawn(0)), drawn(0), (), Work())[-1].tolist() == [1, 1, 1, 1]


def test_a_branch_leaves_with_those_inside_it() -> None:
    outer = [(1,), (2, 3), (3,)]  # block 2 lies within block 1
    for seed in range(10):
        way = descent(blocks(drawn(seed)), drawn(seed), outer, Work(per_layer=50.0))
        assert (way[way[:, 2] == 0][:, 3] == 0).all()
        assert way[-1].tolist() == [1, 0, 0, 0]


def test_with_overhead_a_branch_leaves_earlier() -> None:
    def units_elsewhere_when_the_first_left(overhead: float) -> int:
        way = descent(blocks(drawn(1)), drawn(1), BRANCHES, Work(per_layer=overhead))
        return int(way[(way == 0).any(axis=1)][0].sum())

    left = [units_elsewhere_when_the_first_left(o) for o in (0.0, 20.0, 1000.0)]
    assert left == sorted(left)
    assert left[0] < left[-1]


def test_of_equal_steps_the_one_that_saves_more_comes_first() -> None:
    zeros = [np.zeros(n) for n in (TRUNK, *INNER)]
    way = descent(blocks(zeros), zeros, BRANCHES, Work())
    assert way[:5].tolist() == [[TRUNK, left, 3, 4] for left in (4, 3, 2, 1, 0)]


def test_a_branch_that_leaves_becomes_narrow_first() -> None:
    scores = [np.ones(TRUNK), *(np.ones(n) for n in INNER)]
    way = descent(blocks(scores), scores, [(1, 2), (3,)], Work(per_layer=1000.0))
    first = way[: 1 + int(np.flatnonzero((way[:, 1] == 0) | (way[:, 3] == 0))[0])]
    inside = [1, 2] if first[-1, 1] == 0 else [3]
    others = [i for i in range(4) if i not in inside]
    assert (first[:, others] == first[0, others]).all()
    assert (first[-2, inside] == 1).all()


def test_wide_groups_take_several_units_in_a_step() -> None:
    given = blocks([np.ones(5000), *drawn(0)[1:]])
    space = replace(given, allowed=[np.arange(1, 5001), *given.allowed[1:]])
    way = descent(space, space.scores, (), Work())
    assert len(way) < 100
    assert (way[0, 0], way[-1, 0]) == (5000, 1)
