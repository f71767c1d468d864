"""Whole searches on small networks: what comes back, what is refused, what a seed determines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from billhook.allocate.budget import Budget
from billhook.errors import BudgetError, InputError, NameNotFoundError, StorageError
from billhook.graph import verify
from billhook.search.driver import Progress, search
from billhook.search.studies.trial import Trial
from tests.search import problem


def test_a_search_returns_the_best_trial_within_the_budget_and_its_plan() -> None:
    searched = problem("plain", Budget(macs=0.5))
    found = search(searched, "random", trials=12)
    assert len(found.trials) == 12
    assert found.best is not None
    assert found.best.accuracy == max(t.accuracy for t in found.trials)
    plan = found.plan()
    assert searched.graph.costs.cost(plan).macs <= 0.5 * searched.graph.costs.cost(None).macs
    assert verify(searched.model, plan, searched.example_inputs).agrees
    assert found.plan(3).made_by["trial"] == 3
    with pytest.raises(InputError, match="no such trial among the 12"):
        found.plan(12)


def test_the_front_has_no_beaten_trial() -> None:
    found = search(problem("plain"), "nsga2", trials=24, options={"population": 8})
    front = found.front
    for trial in found.trials:
        beaten = [f for f in front if f.costs["macs"] <= trial.costs["macs"] and f.accuracy >= trial.accuracy]
        assert beaten, "a trial is neither on the front nor beaten by it"
    assert [t.costs["macs"] for t in front] == sorted(t.costs["macs"] for t in front)


@pytest.mark.parametrize("method", ["random", "tpe", "nsga2"])
def test_the_same_seed_is_the_same_study(method: str) -> None:
    trials = [search(problem("plain", Budget(macs=0.6)), method, trials=26).trials for _ in range(2)]
    assert [t.genes for t in trials[0]] == [t.genes for t in trials[1]]
    other = search(problem("plain", Budget(macs=0.6), seed=1), method, trials=26).trials
    assert [t.genes for t in other] != [t.genes for t in trials[0]]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("random", {}),
        ("tpe", {}),
        ("nsga2", {"population": 4}),
        ("amc", {"hidden": 8}),
        ("agmc", {}),
        ("metapruning", {"steps": 2, "hidden": 2}),
        ("jcw", {"evaluation": "inherited", "population": 4, "channels": 0.0}),
        ("jcw", {"population": 3, "slice_steps": 2, "channels": 0.0}),
    ],
)
def test_a_search_goes_on_beyond_what_was_planned(
    tmp_path: Path, method: str, options: dict[str, Any]
) -> None:
    searched = problem("plain", None if method == "jcw" else Budget(params=0.8))
    first = search(searched, method, options=options, trials=16, study=tmp_path / "s.db").trials
    found = search(searched, method, options=options, trials=32, study=tmp_path / "s.db").trials
    assert [t.genes for t in found[: len(first)]] == [t.genes for t in first]
    assert len(first) >= 8
    assert len(found) > len(first)


@pytest.mark.parametrize("method", ["random", "tpe", "nsga2"])
def test_a_search_goes_on_where_it_stopped(tmp_path: Path, method: str) -> None:
    searched = problem("plain", Budget(macs=0.6))
    whole = search(searched, method, trials=24)
    search(searched, method, trials=9, study=tmp_path / "s.db")
    told: list[tuple[Trial, Progress]] = []
    found = search(
        searched, method, trials=24, study=tmp_path / "s.db", on_trial=lambda t, p: told.append((t, p))
    )
    assert [t.genes for t in found.trials] == [t.genes for t in whole.trials]
    assert [p.done for _, p in told] == list(range(1, 25))
    assert told[-1][1].best == found.best


def test_two_workers_find_what_one_finds_in_batches_of_two(tmp_path: Path) -> None:
    searched = problem("plain", Budget(macs=0.6))
    one = search(searched, "random", trials=8, parallel=2)
    two = search(searched, "random", trials=8, workers=2)
    assert [(t.genes, t.accuracy) for t in one.trials] == [(t.genes, t.accuracy) for t in two.trials]


def test_bad_input_is_refused_before_anything_is_evaluated(tmp_path: Path) -> None:
    with pytest.raises(NameNotFoundError, match="randm"):
        search(problem("plain"), "randm")
    with pytest.raises(InputError, match="trials=0"):
        search(problem("plain"), "random", trials=0)
    with pytest.raises(InputError, match="no option 'startups'"):
        search(problem("plain"), "tpe", options={"startups": 3})
    with pytest.raises(BudgetError, match="reach from"):
        search(problem("plain", Budget(macs=0.0001)), "random", study=tmp_path / "s.db")
    assert not (tmp_path / "s.db").exists()


def test_a_study_of_another_network_or_search_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "s.db"
    search(problem("plain", Budget(macs=0.6)), "random", trials=2, study=place)
    with pytest.raises(StorageError, match=r"s\.db"):
        search(problem("residual", Budget(macs=0.6)), "random", trials=2, study=place)
    with pytest.raises(StorageError, match="macs"):
        search(problem("plain", Budget(macs=0.5)), "random", trials=2, study=place)
    with pytest.raises(StorageError, match="random"):
        search(problem("plain", Budget(macs=0.6)), "tpe", trials=2, study=place)
