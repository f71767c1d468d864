"""A session numbers candidates, evaluates each once, and gets what a study has without evaluating."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from billhook.allocate.budget import Budget
from billhook.errors import InputError, StorageError
from billhook.search.costs import SearchCosts
from billhook.search.session import Session, StopSearch
from billhook.search.studies import heartbeat
from billhook.search.studies import study as study_file
from billhook.search.studies.study import Study
from billhook.search.workers import open_workers
from tests.search import Table, problem

Open = Callable[..., Session]
PROBLEM = problem("plain", Budget(macs=0.6))


def _worth(fractions: Any) -> float:
    return float(fractions.mean())


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Open]:
    """Return what opens a session on one study file, as often as it is called."""
    opened: list[Any] = []

    def open_session(objective: Any = None, trials: int = 10, file: str = "s.db") -> Session:
        space = PROBLEM.space
        facts = {
            "space": space.signature,
            "objectives": ["accuracy"],
            "parallel": 1,
            "genes": [{"name": g.name, "values": list(g.values)} for g in space.genes],
        }
        study = Study.of(tmp_path / file, "search", facts)
        study.__enter__()
        pool = open_workers(1, None)
        pool.__enter__()
        opened.extend((pool, study))
        made = objective or Table(space, _worth, "usual")
        return Session(
            PROBLEM,
            SearchCosts(space, PROBLEM.budget),
            made,
            study,
            pool,
            trials=trials,
            planned=trials,
            parallel=1,
            folder=tmp_path,
        )

    yield open_session
    for one in opened:
        one.__exit__(None, None, None)


def _rows(count: int, seed: int = 0) -> Any:
    return PROBLEM.space.random(np.random.default_rng(seed), count)


def test_candidates_are_numbered_and_come_back_in_order(begin: Open) -> None:
    session = begin()
    first, second = session.evaluate(_rows(3)), session.evaluate(_rows(2, seed=1))
    assert [t.number for t in first + second] == [0, 1, 2, 3, 4]
    assert [t.genes for t in first] == [tuple(r) for r in _rows(3)]
    assert session.done == first + second
    for trial in first:
        expected = session.costs.of(np.array(trial.genes))
        assert trial.costs == {m: float(v[0]) for m, v in expected.items()}


def test_trials_run_out(begin: Open) -> None:
    session = begin(trials=4)
    assert len(session.evaluate(_rows(3))) == 3
    assert len(session.evaluate(_rows(3, seed=1))) == 1, "the batch is cut to what is left"
    with pytest.raises(StopSearch):
        session.evaluate(_rows(1))


def test_the_same_genes_are_evaluated_once(begin: Open) -> None:
    table = Table(PROBLEM.space, _worth)
    session = begin(table)
    row = _rows(1)[0]
    found = session.evaluate([row, row]) + session.evaluate([row])
    assert len(table.asked) == 1
    assert [t.cached for t in found] == [False, True, True]
    assert len({t.accuracy for t in found}) == 1


def test_another_objective_judges_anew(begin: Open) -> None:
    table, other = Table(PROBLEM.space, _worth), Table(PROBLEM.space, lambda f: 0.25, "other")
    session = begin(table)
    row = _rows(1)[0]
    (first,), (second,) = session.evaluate([row]), session.evaluate([row], other)
    assert (len(table.asked), len(other.asked)) == (1, 1)
    assert second.accuracy == 0.25 != first.accuracy


def test_a_search_that_begins_again_gets_finished_trials_without_evaluation(begin: Open) -> None:
    before = begin().evaluate(_rows(4))
    table = Table(PROBLEM.space, _worth)
    again = begin(table)
    assert again.evaluate(_rows(4)) == before
    assert table.asked == []
    again.evaluate(_rows(1, seed=5))
    assert len(table.asked) == 1


def test_what_makes_an_objective_is_only_called_if_it_is_needed(begin: Open) -> None:
    made: list[int] = []

    def make() -> Table:
        made.append(1)
        return Table(PROBLEM.space, _worth, "late")

    begin().evaluate(_rows(2), make, key="late")
    assert made == [1]
    begin().evaluate(_rows(2), make, key="late")
    assert made == [1]


def test_claims_give_signs_of_life_while_a_searcher_trains(
    begin: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_file, "BEAT", 0.0)
    monkeypatch.setattr(heartbeat, "_EVERY", 0.01)

    def train() -> Table:
        with closing(sqlite3.connect(tmp_path / "s.db", isolation_level=None)) as connection:
            connection.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-70 seconds')")
            age = "SELECT (julianday('now') - julianday(heartbeat)) * 86400 FROM trial_heartbeats"
            until = time.monotonic() + 20
            while connection.execute(age).fetchone()[0] > 60:
                assert time.monotonic() < until, "another machine would have taken the trial over"
                time.sleep(0.01)
        return Table(PROBLEM.space, _worth, "late")

    assert len(begin().evaluate(_rows(1), train, key="late")) == 1


def test_the_usual_objective_is_made_once_and_late(begin: Open) -> None:
    made: list[int] = []

    def make() -> Table:
        made.append(1)
        return Table(PROBLEM.space, _worth, PROBLEM.key)

    session = begin(make)
    assert made == []
    session.evaluate(_rows(2))
    session.evaluate(_rows(2, seed=1))
    assert made == [1]
    begin(make).evaluate(_rows(2))
    assert made == [1], "nothing had to be evaluated"


def test_a_search_that_asks_for_other_genes_is_told_so(begin: Open) -> None:
    begin().evaluate(_rows(2))
    with pytest.raises(StorageError, match="other genes"):
        begin().evaluate(_rows(2, seed=9))


@pytest.mark.parametrize("worth", [float("nan"), float("inf")])
def test_what_is_no_number_stops_the_search_and_is_not_kept(begin: Open, worth: float) -> None:
    session = begin(Table(PROBLEM.space, lambda f: worth))
    with pytest.raises(InputError, match=r"trial 0 has an accuracy of (nan|inf)"):
        session.evaluate(_rows(1))
    table = Table(PROBLEM.space, _worth)
    assert begin(table).evaluate(_rows(1))[0].finite
    assert len(table.asked) == 1


def test_the_best_trial_keeps_the_limits(begin: Open) -> None:
    session = begin()
    assert session.best() is None
    session.evaluate([PROBLEM.space.highest, PROBLEM.space.lowest])
    best = session.best()
    assert best is not None
    assert best.genes == tuple(PROBLEM.space.lowest), "the whole network is better, but beyond the budget"
    assert session.best(session.done[:1]) is None


def test_notes_are_kept(begin: Open) -> None:
    begin().evaluate(_rows(2), notes=[{"ratio": 0.5}, {"ratio": 0.25}])
    assert [t.notes for t in begin().evaluate(_rows(2))] == [{"ratio": 0.5}, {"ratio": 0.25}]
