"""Random search: candidates that use the budget up, each drawn for its number alone."""

from __future__ import annotations

import numpy as np

from billhook.allocate.budget import Budget
from billhook.search.costs import SearchCosts
from billhook.search.driver import search
from tests.search import problem


def test_candidates_use_the_budget_up_and_differ() -> None:
    searched = problem("residual", Budget(macs=0.5))
    found = search(searched, "random", trials=16)
    costs = SearchCosts(searched.space, searched.budget)
    rows = np.array([t.genes for t in found.trials])
    assert costs.within(rows).all()
    assert np.median(costs.relative(rows, "macs")) > 0.4
    assert len({t.genes for t in found.trials}) > 4


def test_candidates_do_not_depend_on_how_many_are_drawn_together() -> None:
    searched = problem("residual", Budget(macs=0.5))
    alone, together = (search(searched, "random", trials=6, parallel=n) for n in (1, 3))
    assert [t.genes for t in alone.trials] == [t.genes for t in together.trials]
