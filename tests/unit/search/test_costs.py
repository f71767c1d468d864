"""What candidates cost, which are allowed, and how one is brought within the limits."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from billhook.allocate.budget import Budget
from billhook.errors import BudgetError, InputError
from billhook.graph import capture
from billhook.search.costs import SearchCosts
from billhook.search.space import Floats, Genes, Space
from tests.search import problem


class _Straight:
    """Latency that grows with all values."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def of(self, rows: Genes) -> Floats:
        seconds: Floats = 1e-3 * self._space.fractions(rows).sum(1)
        return seconds

    @property
    def original(self) -> float:
        return 1e-3 * len(self._space.genes)


def test_costs_are_those_of_the_plans() -> None:
    searched = problem("residual")
    costs = SearchCosts(searched.space)
    rows = searched.space.random(np.random.default_rng(0), 5)
    found = costs.of(rows)
    for i, row in enumerate(rows):
        plan = searched.space.plan(row, searched.model)
        expected = searched.whole.costs.cost(plan)
        assert found["macs"][i] == expected.macs
        assert found["params"][i] == expected.params
        assert found["size"][i] == expected.bytes


def test_fitted_candidates_keep_all_limits_and_use_them_up() -> None:
    searched = problem("residual", Budget(macs=0.5, params=0.7))
    costs = SearchCosts(searched.space, searched.budget)
    rng = np.random.default_rng(0)
    for row in searched.space.random(rng, 30):
        fitted = costs.fitted(row, rng)
        assert costs.within(fitted)[0]
        more = fitted + np.eye(len(fitted), dtype=np.int64)
        can_grow = fitted < searched.space.highest
        assert not costs.within(more[can_grow]).any(), "a gene could be raised within the limits"


def test_what_is_left_of_a_budget_goes_to_the_narrowest() -> None:
    searched = problem("residual", Budget(macs=0.5))
    costs, space = SearchCosts(searched.space, searched.budget), searched.space
    filled = costs.filled(space.lowest)
    assert costs.within(filled)[0]
    raised = filled + np.eye(len(filled), dtype=np.int64)
    assert not costs.within(raised[filled < space.highest]).any()
    spread = np.ptp(space.fractions(filled))
    others = [np.ptp(space.fractions(costs.fitted(space.lowest, np.random.default_rng(s)))) for s in range(5)]
    assert spread < min(others)


def test_lowering_leaves_alone_what_is_within_the_limits() -> None:
    searched = problem("plain", Budget(macs=0.9))
    costs = SearchCosts(searched.space, searched.budget)
    rng = np.random.default_rng(0)
    assert (costs.lowered(searched.space.lowest, rng) == searched.space.lowest).all()
    assert costs.within(costs.lowered(searched.space.highest, rng))[0]


def test_a_budget_out_of_reach_names_the_range() -> None:
    searched = problem("plain", Budget(macs=0.0001))
    costs = SearchCosts(searched.space, searched.budget)
    least, most = costs.reachable()["macs"]
    with pytest.raises(BudgetError, match=r"reach from .* to .*100\.0% of the original") as error:
        costs.require_reachable()
    assert error.value.reachable == {"macs": least}
    assert least < most


def test_latency_counts_where_there_is_a_model() -> None:
    searched = problem("plain", Budget(latency=0.5))
    with pytest.raises(InputError, match="needs a latency model"):
        SearchCosts(searched.space, searched.budget)
    costs = SearchCosts(searched.space, searched.budget, _Straight(searched.space))
    rng = np.random.default_rng(0)
    fitted = costs.fitted(searched.space.highest, rng)
    assert costs.relative(fitted, "latency")[0] <= 0.5
    with pytest.raises(InputError, match="unknown cost metric 'latncy'"):
        costs.of(fitted, ("latncy",))


def test_without_a_budget_everything_is_allowed() -> None:
    searched = problem("plain")
    costs = SearchCosts(searched.space)
    rows = searched.space.random(np.random.default_rng(0), 3)
    assert costs.within(rows).all()
    assert (costs.fitted(rows[0], np.random.default_rng(0)) == rows[0]).all()


def test_costs_are_those_of_the_example_inputs_whatever_batch_size_candidates_run_with() -> None:
    given = problem("plain")
    single = replace(given, example_inputs=given.example_inputs[:1])
    searched = SearchCosts(single.space)
    cost = capture(single.model, single.example_inputs).costs.cost(None)
    assert searched.original["macs"] == cost.macs
    assert searched.original["size"] == cost.bytes
    again = pickle.loads(pickle.dumps(single.space))  # as another process gets it
    assert SearchCosts(again).original == searched.original
