"""TPE learns which values are good, and stays within the budget."""

from __future__ import annotations

from statistics import mean

import pytest

from billhook.allocate.budget import Budget
from billhook.search import driver
from billhook.search.costs import SearchCosts
from tests.search import Table, problem


def _of_first(fractions: object) -> float:
    return float(fractions[0])  # type: ignore[index]


def test_later_candidates_are_better_than_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = problem("residual", Budget(macs=0.5))
    monkeypatch.setattr(driver, "InheritedWeights", lambda p: Table(p.space, _of_first))
    found = driver.search(searched, "tpe", trials=60)
    worth = [t.accuracy for t in found.trials]
    assert mean(worth[40:]) > mean(worth[:20]) + 0.1
    costs = SearchCosts(searched.space, searched.budget)
    import numpy as np

    assert costs.within(np.array([t.genes for t in found.trials])).all()
