"""NSGA-II spreads over a front and, with a budget, stays within it."""

from __future__ import annotations

import numpy as np
import pytest

from billhook.allocate.budget import Budget
from billhook.search import driver
from billhook.search.costs import SearchCosts
from tests.search import Table, problem


def test_a_front_covers_small_and_large_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = problem("residual")
    monkeypatch.setattr(driver, "InheritedWeights", lambda p: Table(p.space, lambda f: float(f.mean())))
    found = driver.search(searched, "nsga2", trials=120, options={"population": 24})
    macs = np.array([t.costs["macs"] for t in found.front]) / found.costs.original["macs"]
    assert len(macs) >= 8
    assert macs.min() < 0.3
    assert macs.max() > 0.7


def test_a_budget_is_kept() -> None:
    searched = problem("plain", Budget(macs=0.4))
    found = driver.search(searched, "nsga2", trials=24, options={"population": 8})
    costs = SearchCosts(searched.space, searched.budget)
    assert costs.within(np.array([t.genes for t in found.trials])).all()
