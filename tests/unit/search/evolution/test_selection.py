from __future__ import annotations

import numpy as np
import pytest

from billhook.errors import InputError
from billhook.search.evolution.selection import by_individual, latency_targets, nsga2, unds

# (loss, ms): a, e, b, c, d of the toy in the specification; none dominates another.
A, E, B, C, D = range(5)
TOY = np.array([(1.0, 10), (0.9, 15), (0.8, 20), (0.5, 40), (0.45, 80)])
TARGETS = [10, 45, 80]


def test_uniform_sorting_fills_a_population_from_all_latencies() -> None:
    assert unds(TOY, TARGETS, 1).tolist() == [A]
    assert unds(TOY, TARGETS, 2).tolist() == [A, D]
    assert unds(TOY, TARGETS, 3).tolist() == [A, C, D]
    assert unds(TOY, TARGETS, 5).tolist() == unds(TOY, TARGETS, 9).tolist() == [A, E, B, C, D]


def test_fronts_are_taken_by_stages_over_all_targets() -> None:
    # The first fronts of T=45 and T=80 are {c, d} and {d}: with 10 left out, they come before all others.
    assert unds(TOY, [45, 80], 2).tolist() == [C, D]
    # Second front of T=45: b is better and nearer than e and a. Of T=80: c.
    assert unds(TOY, [45, 80], 3).tolist() == [B, C, D]


def test_a_bad_candidate_near_a_target_does_not_drive_out_the_front() -> None:
    costs = np.concatenate([TOY, [(2.0, 12), (2.0, 50), (2.0, 79)]])
    assert unds(costs, TARGETS, 5).tolist() == [A, E, B, C, D]


def test_nsga2_takes_whole_fronts_and_then_the_roomiest() -> None:
    assert nsga2(TOY, 2).tolist() == [A, D]
    # Room, both costs: e 0.2/0.55 + 10/70, b 0.4/0.55 + 25/70, c 0.35/0.55 + 60/70.
    assert nsga2(TOY, 3).tolist() == [A, C, D]
    assert nsga2(TOY, 4).tolist() == [A, B, C, D]
    worse = np.concatenate([TOY + 1, TOY])
    assert nsga2(worse, 5).tolist() == [5, 6, 7, 8, 9]


def test_targets_pick_in_turns() -> None:
    # The first of T=10 is a (an end of its front), of T=45 c, of T=80 d.
    assert by_individual(TOY, TARGETS, 3).tolist() == [A, C, D]
    assert by_individual(TOY, TARGETS, 9).tolist() == [A, E, B, C, D]


def test_targets_lie_between_the_ends_which_are_targets_themselves() -> None:
    assert latency_targets(10, 70, 4).tolist() == [10, 30, 50, 70]
    drawn = latency_targets(10, 70, 5, np.random.default_rng(3))
    assert drawn[0] == 10
    assert drawn[-1] == 70
    assert (np.diff(drawn) > 0).all()
    assert drawn.tolist() == latency_targets(10, 70, 5, np.random.default_rng(3)).tolist()
    with pytest.raises(InputError, match="low before high"):
        latency_targets(2, 1, 4)


def test_costs_must_be_pairs() -> None:
    with pytest.raises(InputError, match=r"expected \[rows, \(loss, latency\)\]"):
        unds(np.zeros((4, 3)), TARGETS, 2)
