"""Candidates lie at the edge of the budget, in the direction that the agent says."""

from __future__ import annotations

import numpy as np
import pytest

from billhook.allocate.budget import Budget
from billhook.search.costs import SearchCosts
from billhook.search.encoder.rays import at_budget, meets
from tests.search_candidates import mlp_space


@pytest.mark.parametrize("limit", [0.2, 0.5, 0.8])
def test_every_candidate_keeps_the_budget_and_uses_it_up(limit: float) -> None:
    costs = SearchCosts(mlp_space((16, 16, 16), 8), Budget(macs=limit))
    rng = np.random.default_rng(0)
    for _ in range(20):
        row = at_budget(costs, np.ones(3), rng.random(3) + 0.01)
        assert costs.within(row)[0]
        raised = [row + np.eye(3, dtype=np.int64)[i] for i in range(3) if row[i] < costs.space.highest[i]]
        assert not costs.within(np.stack(raised)).any()


def test_genes_lose_in_proportion_to_the_step() -> None:
    costs = SearchCosts(mlp_space((64, 64), 64), Budget(macs=0.6))
    left = costs.space.fractions(at_budget(costs, np.ones(2), np.array([0.9, 0.3])))[0]
    assert (1 - left[0]) / (1 - left[1]) == pytest.approx(3, rel=0.2)


def test_a_start_that_meets_the_budget_stays_where_it_is_but_for_what_is_left() -> None:
    costs = SearchCosts(mlp_space((16, 16), 4), Budget(macs=0.9))
    start = np.array([0.5, 0.75])
    assert meets(costs, start)
    assert (costs.space.fractions(at_budget(costs, start, np.zeros(2)))[0] >= start).all()


def test_the_same_question_has_the_same_answer() -> None:
    costs = SearchCosts(mlp_space((16, 16, 16), 8), Budget(macs=0.4))
    rows = [at_budget(costs, np.ones(3), np.array([0.2, 0.5, 0.9])) for _ in range(3)]
    assert all((row == rows[0]).all() for row in rows)
