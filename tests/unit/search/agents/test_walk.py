from __future__ import annotations

import numpy as np
import pytest

from billhook.allocate.budget import Budget
from billhook.errors import BudgetError
from billhook.search.agents.features import FEATURES
from billhook.search.agents.walk import Walk
from tests.search_candidates import Judged, mlp_space


def test_actions_become_the_nearest_values() -> None:
    walk = Walk(Judged(mlp_space(parts=4), lambda g: 0.0), 5)
    walk.step([0.0, 0.3, 0.375, 0.6, 1.0])  # 0.25, 0.25, 0.5 (ties go up), 0.5, 1
    assert walk.rows[:, 0].tolist() == [0, 0, 1, 1, 3]
    assert (walk.rows[:, 1:] == 0).all()


def test_what_is_seen_changes_with_what_is_done() -> None:
    candidates = Judged(mlp_space(parts=4), lambda g: 0.0)
    walk = Walk(candidates, 2)
    first = walk.begin()
    assert first.shape == (2, len(FEATURES))
    assert first.dtype == np.float32
    assert (first[:, FEATURES.index("last")] == 1).all()
    second = walk.step([0.25, 1.0])
    np.testing.assert_allclose(second[:, FEATURES.index("last")], [0.25, 1.0])
    costs = candidates.costs.of(walk.rows, ["macs"])["macs"]
    saved = 1 - costs / candidates.costs.original["macs"]
    np.testing.assert_allclose(second[:, FEATURES.index("reduced")], saved, atol=1e-6)
    assert saved[0] > saved[1]


def test_a_new_episode_starts_from_nothing() -> None:
    walk = Walk(Judged(mlp_space(), lambda g: 0.0), 2)
    first = walk.begin()
    while not walk.done:
        walk.step([1.0, 0.5])
    np.testing.assert_array_equal(walk.begin(), first)
    assert walk.at == 0
    assert not walk.rows.any()


def test_a_budget_below_the_floor_is_refused_at_once_and_the_range_is_named() -> None:
    with pytest.raises(BudgetError, match=r"macs .* cannot be met: .* reach from"):
        Walk(Judged(mlp_space(), lambda g: 0.0, Budget(macs=0.01)))
