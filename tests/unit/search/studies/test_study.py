"""What is finished stays, whatever happens; what is claimed belongs to one; nothing is claimed for ever."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from billhook.errors import InputError, StorageError
from billhook.search.studies import study as study_file
from billhook.search.studies.study import Study
from billhook.search.studies.trial import Trial
from tests.arch.source import ROOT
from tests.unit.search.studies.trials import GENES, carry_out, facts, genes_of, trial_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "s.db"


def _execute(file: Path, statement: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(statement)


def _states(file: Path, name: str = "search") -> list[TrialState]:
    return [t.state for t in optuna.load_study(study_name=name, storage=f"sqlite:///{file}").trials]


def test_finished_trials_come_back_as_they_were(file: Path) -> None:
    with Study.create(file, "search", facts()) as study:
        for number in (0, 2, 1):
            assert carry_out(study, number) == trial_of(number)
    with Study.open(file) as study:
        assert study.finished() == {n: trial_of(n) for n in range(3)}
        assert study.facts == {**facts(), "format": "billhook.study/1"}


def test_only_what_is_new_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Study.create(file, "search", facts()) as study, Study.open(file) as other:
        carry_out(study, 0)
        asked: list[list[int]] = []
        read = other._table.attributes
        monkeypatch.setattr(other._table, "attributes", lambda c, ids: asked.append(ids) or read(c, ids))
        assert sorted(other.finished()) == [0]
        carry_out(study, 1)
        assert sorted(other.finished()) == [0, 1]
        assert sorted(other.finished()) == [0, 1]
        assert [len(ids) for ids in asked] == [1, 1, 0]


def test_optuna_shows_genes_values_and_what_else_there_is(file: Path) -> None:
    with Study.create(file, "front", facts(objectives=["loss", "cost"])) as study:
        carry_out(study, 5)
        study.claim(6, genes_of(6))
    shown = optuna.load_study(study_name="front", storage=f"sqlite:///{file}")
    assert shown.metric_names == ["loss", "cost"]
    assert [d.name for d in shown.directions] == ["MINIMIZE", "MINIMIZE"]
    assert shown.user_attrs["method"] == "random"
    done, given_back = shown.trials
    assert done.state == TrialState.COMPLETE
    assert done.values == [trial_of(5).loss, 1e6 + 5]
    assert done.params == {"channels conv1": 1, "density fc.weight": 1}
    assert done.distributions["channels conv1"] == IntDistribution(0, 3)
    assert done.user_attrs["values"] == {"channels conv1": 8.0, "density fc.weight": 1.0}
    assert done.user_attrs["number"] == 5
    assert done.user_attrs["accuracy"] == trial_of(5).accuracy
    assert done.duration is not None
    assert given_back.state == TrialState.FAIL
    assert given_back.user_attrs["error"] == "the search ended"
    assert [t.number for t in shown.trials] == [0, 1], "Optuna's own numbers have no gaps"
    assert [t.number for t in shown.best_trials] == [0]


def test_a_single_objective_is_raised(file: Path) -> None:
    with Study.create(file, "search", facts()) as study:
        carry_out(study, 0)
        carry_out(study, 3)
    shown = optuna.load_study(study_name="search", storage=f"sqlite:///{file}")
    assert shown.best_value == trial_of(3).accuracy


def test_a_number_is_claimed_by_one_at_a_time(file: Path) -> None:
    with Study.create(file, "search", facts()) as study, Study.open(file) as other:
        claim = study.claim(0, genes_of(0))
        assert claim is not None
        assert other.claim(0, genes_of(0)) is None
        assert study.claim(0, genes_of(0)) is None
        assert other.claim(1, genes_of(1)) is not None
        study.finish(claim, trial_of(0))
        assert other.claim(0, genes_of(0)) is None
        assert sorted(other.finished()) == [0]


def test_a_claim_that_is_given_back_can_be_taken(file: Path) -> None:
    with Study.create(file, "search", facts()) as study, Study.open(file) as other:
        claim = study.claim(0, genes_of(0))
        assert claim is not None
        study.fail(claim, "no memory")
        assert carry_out(other, 0) == trial_of(0)
    shown = optuna.load_study(study_name="search", storage=f"sqlite:///{file}").trials
    assert [t.state for t in shown] == [TrialState.FAIL, TrialState.COMPLETE]
    assert shown[0].user_attrs["error"] == "no memory"


@pytest.mark.parametrize(
    ("silence", "seconds", "taken"), [(50, 0.2, False), (70, 0.2, True), (70, 300, False)]
)
def test_a_claim_whose_owner_is_silent_can_be_taken_over(
    file: Path, silence: int, seconds: float, taken: bool
) -> None:
    with Study.create(file, "search", facts()) as study, Study.open(file) as other:
        carry_out(study, 7, seconds=seconds)  # owners may be silent for longer if evaluations are
        claim = study.claim(0, genes_of(0))
        assert claim is not None
        _execute(file, f"UPDATE trial_heartbeats SET heartbeat = datetime('now', '-{silence} seconds')")
        other.finished()
        assert (other.claim(0, genes_of(0)) is not None) == taken


def test_signs_of_life_keep_a_claim(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Study.create(file, "search", facts()) as study, Study.open(file) as other:
        study.claim(0, genes_of(0))
        _execute(file, "UPDATE trial_heartbeats SET heartbeat = datetime('now', '-70 seconds')")
        study.beat()  # too early: it writes every ten seconds at most
        monkeypatch.setattr(study_file, "BEAT", 0.0)
        with closing(sqlite3.connect(file)) as connection:
            (age,) = connection.execute(
                "SELECT (julianday('now') - julianday(heartbeat)) * 86400 FROM trial_heartbeats"
            ).fetchone()
        assert age > 60
        study.beat()
        assert other.claim(0, genes_of(0)) is None


def test_the_result_of_a_claim_that_was_taken_over_is_not_lost(file: Path) -> None:
    with Study.create(file, "search", facts()) as slow, Study.open(file) as quick:
        first = slow.claim(0, genes_of(0))
        second = slow.claim(1, genes_of(1))
        assert first is not None
        assert second is not None
        _execute(file, "UPDATE trial_heartbeats SET heartbeat = datetime('now', '-70 seconds')")
        taken = [quick.claim(n, genes_of(n)) for n in (0, 1)]
        # Who is first is right, and both see that.
        assert slow.finish(first, trial_of(0, loss=0.1)).loss == 0.1
        assert quick.finish(taken[0], trial_of(0, loss=0.2)).loss == 0.1
        assert quick.finish(taken[1], trial_of(1, loss=0.2)).loss == 0.2
        assert slow.finish(second, trial_of(1, loss=0.1)).loss == 0.2
        assert slow.finished() == quick.finished()
    with Study.open(file) as study:
        assert [study.finished()[n].loss for n in (0, 1)] == [0.1, 0.2]
    assert _states(file).count(TrialState.COMPLETE) == 2


@pytest.mark.parametrize("change", [{"accuracy": float("nan")}, {"loss": float("inf")}])
def test_what_is_no_number_is_not_kept(file: Path, change: dict[str, float]) -> None:
    with Study.create(file, "search", facts()) as study:
        claim = study.claim(0, genes_of(0))
        assert claim is not None
        with pytest.raises(StorageError, match="trial 0: accuracy or loss is no number"):
            study.finish(claim, trial_of(0, **change))
        assert not study.finished()
        assert study.claim(0, genes_of(0)) is not None, "it may be tried again"


DRIVER = """
import os, sys, time
from pathlib import Path
from billhook.search.studies.study import Study
from tests.unit.search.studies.trials import carry_out, facts, genes_of, trial_of

with Study.of(sys.argv[1], "search", facts()) as study:
    for first in range(0, 40, 2):
        numbers = [n for n in (first, first + 1) if n not in study.finished()]
        claims = [study.claim(n, genes_of(n)) for n in numbers]
        for number, claim in zip(numbers, claims):
            with open(sys.argv[2], "a") as log:
                print(number, file=log)
            time.sleep(0.02)
            study.finish(claim, trial_of(number))
"""


def test_a_killed_search_goes_on_without_what_is_finished(file: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    command = [sys.executable, "-c", DRIVER, str(file), str(log)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "src")))}
    for least in (5, 20):
        with subprocess.Popen(command, env=environment) as driver:
            while len(log.read_text().splitlines()) < least:
                assert driver.poll() is None
                time.sleep(0.005)
            driver.send_signal(signal.SIGKILL)
    assert TrialState.RUNNING in _states(file)
    subprocess.run(command, env=environment, check=True)
    with Study.open(file) as study:
        assert study.finished() == {n: trial_of(n) for n in range(40)}
    begun = log.read_text().split()
    assert sorted(map(int, set(begun))) == list(range(40))
    assert len(begun) <= 42, "each of the two kills has cost one evaluation at most"
    states = _states(file)
    assert states.count(TrialState.COMPLETE) == 40
    assert states.count(TrialState.FAIL) == len(states) - 40
    assert len(states) <= 44, "and two claims"


def test_several_studies_live_in_one_file(file: Path) -> None:
    with Study.create(file, "a", facts()) as a, Study.create(file, "b", facts(seed=1)) as b:
        carry_out(a, 0)
        assert not b.finished()
        carry_out(b, 0, loss=9.0)
        assert a.finished()[0].loss != b.finished()[0].loss
    with pytest.raises(StorageError, match=r"there is no study 'c' here; known: a, b"):
        Study.open(file, "c")
    assert Study.find(file, "c") is None
    with Study.find(file, "b") as found:
        assert found.facts["seed"] == 1


def test_a_name_is_taken_once(file: Path) -> None:
    Study.create(file, "search", facts()).close()
    with pytest.raises(StorageError, match="study 'search' exists already; resume it, or give another file"):
        Study.create(file, "search", facts())
    with pytest.raises(InputError, match="1 to 500 characters, this one 0"):
        Study.create(file, "", facts())


def test_a_search_goes_on_in_its_own_study_only(file: Path) -> None:
    with Study.of(file, "search", facts()) as study:
        carry_out(study, 0)
    with Study.of(file, "search", facts(parallel=8, version="9")) as study:
        assert sorted(study.finished()) == [0]
        assert study.facts["parallel"] == 2, "as it began"
    for changes, message in (
        (
            {"method": "jcw", "seed": 3},
            "another searcher ('random' there, 'jcw' here); another seed (0 there, 3",
        ),
        ({"space": "0" * 16, "genes": GENES[:1]}, "another search space (2 genes there, 1 here)"),
        (
            {"space": "0" * 16, "genes": [{"name": "channels conv1", "values": [1.0]}, GENES[1]]},
            "another search space ('channels conv1' has [4.0, 8.0, 12.0, 16.0] there, [1.0] here)",
        ),
        ({"space": "0" * 16}, "another search space (the same genes of another network)"),
        ({"budget": None}, "another budget ({'macs': 0.5} there, None here)"),
    ):
        with pytest.raises(StorageError, match=re.escape(message)) as raised:
            Study.of(file, "search", facts(**changes))
        assert "Give another file or another name" in str(raised.value)


def test_a_study_of_something_else_is_refused(file: Path) -> None:
    optuna.create_study(study_name="search", storage=f"sqlite:///{file}")
    with pytest.raises(StorageError, match="the study 'search' was not made by billhook"):
        Study.open(file)
    with pytest.raises(StorageError, match="the study 'search' was not made by billhook"):
        Study.of(file, "search", facts())
    _execute(file, "UPDATE studies SET study_name = 'other'")
    Study.create(file, "search", facts()).close()
    _execute(
        file, "UPDATE study_user_attributes SET value_json = '\"billhook.study/9\"' WHERE key = 'format'"
    )
    with pytest.raises(
        StorageError, match=r"has format 'billhook.study/9', this billhook reads 'billhook.study/1'"
    ):
        Study.open(file)


def test_a_study_without_a_place_leaves_nothing_behind() -> None:
    with Study.of(None, "search", facts()) as study:
        carry_out(study, 0)
        folder = study.folder
        assert folder.is_dir()
    assert not folder.exists()
    study.close()


def test_the_folder_lies_beside_the_file(file: Path) -> None:
    with Study.create(file, "a/b", facts()) as study:
        assert study.folder == file.parent / "s.db.d" / "a%2Fb"
        assert study.folder.is_dir()


def test_a_trial_that_cannot_be_read_is_named(file: Path) -> None:
    with Study.create(file, "search", facts()) as study:
        carry_out(study, 4)
    _execute(file, "UPDATE trial_user_attributes SET value_json = '\"much\"' WHERE key = 'loss'")
    with Study.open(file) as study, pytest.raises(StorageError, match="trial 4 cannot be read"):
        study.finished()


def test_trials_of_others_do_no_harm(file: Path) -> None:
    with Study.create(file, "search", facts()) as study:
        shown = optuna.load_study(study_name="search", storage=f"sqlite:///{file}")
        shown.add_trial(optuna.trial.create_trial(value=0.3))
        shown.ask()
        assert carry_out(study, 0) == trial_of(0)
        assert sorted(study.finished()) == [0]
    assert _states(file) == [TrialState.COMPLETE, TrialState.RUNNING, TrialState.COMPLETE]


@pytest.mark.serial
def test_keeping_a_trial_takes_little_time(file: Path) -> None:
    genes = [{"name": f"channels layer{i}", "values": [1.0, 2.0, 3.0]} for i in range(60)]
    seconds = []
    with Study.create(file, "search", facts(genes=genes)) as study:
        for number in range(60):
            began = time.perf_counter()
            study.finished()
            claim = study.claim(number, [number % 3] * 60)
            assert claim is not None
            study.finish(claim, Trial(number, claim.genes, 0.5, 1.0, {"macs": 1.0}))
            seconds.append(time.perf_counter() - began)
    assert sorted(seconds)[len(seconds) // 2] < 0.02
