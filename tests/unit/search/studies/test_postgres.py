"""Studies on a real PostgreSQL server, which several machines may share."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import optuna
import pg8000.dbapi
import pytest
from optuna.trial import TrialState

from billhook.errors import StorageError
from billhook.search.studies.study import Study
from tests.arch.source import ROOT
from tests.conftest import INSTALL
from tests.unit.search.studies import postgres
from tests.unit.search.studies.trials import carry_out, facts, genes_of, trial_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    where = postgres.programs()
    if where is None:
        pytest.skip(f"the Debian package postgresql is not installed; {INSTALL} as root")
    with postgres.server(where) as started:
        yield started


@pytest.fixture(autouse=True)
def _no_sockets_are_left() -> Iterator[None]:
    """Drivers do not close sockets to a server that is gone; here, not in a later test, they may be found."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def _execute(server: postgres.Server, statement: str) -> None:
    account = {"user": postgres.USER, "password": server.password, "database": "postgres"}
    connection = pg8000.dbapi.connect(host="127.0.0.1", port=server.port, **account)
    connection.cursor().execute(statement)
    connection.commit()
    connection.close()


def _trials(server: postgres.Server, name: str) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(server.url().replace("postgresql:", "postgresql+pg8000:"))
    trials = optuna.load_study(study_name=name, storage=storage).trials
    storage.engine.dispose()
    return trials


def test_finished_trials_come_back_as_they_were(server: postgres.Server) -> None:
    with Study.create(server.url(), "plain", facts(objectives=["loss", "cost"])) as study:
        for number in (0, 2, 1):
            assert carry_out(study, number) == trial_of(number)
    with Study.open(server.url(), "plain") as study:
        assert study.finished() == {n: trial_of(n) for n in range(3)}
        assert str(study) == f"postgresql://tester@127.0.0.1:{server.port}/postgres: the study 'plain'"
    shown = _trials(server, "plain")
    assert [t.params for t in shown] == [
        dict(zip(("channels conv1", "density fc.weight"), genes_of(n), strict=True)) for n in (0, 2, 1)
    ]
    assert [t.values for t in shown] == [[trial_of(n).loss, 1e6 + n] for n in (0, 2, 1)]


def test_a_claim_whose_owner_is_silent_can_be_taken_over(server: postgres.Server) -> None:
    with Study.create(server.url(), "silent", facts()) as study, Study.open(server.url(), "silent") as other:
        study.claim(0, genes_of(0))
        assert other.claim(0, genes_of(0)) is None
        _execute(server, "UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '50 seconds'")
        assert other.claim(0, genes_of(0)) is None
        _execute(server, "UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '20 seconds'")
        assert other.claim(0, genes_of(0)) is not None


DRIVER = """
import sys, time
from pathlib import Path
from billhook.search.studies.study import Study
from tests.unit.search.studies.trials import facts, genes_of, trial_of

url, log = sys.argv[1], Path(sys.argv[2])
with Study.of(url, "shared", facts()) as study:
    print("ready", flush=True)
    sys.stdin.readline()
    for first in range(0, 40, 8):
        numbers = range(first, first + 8)
        while missing := [n for n in numbers if n not in study.finished()]:
            claim = next((c for n in missing if (c := study.claim(n, genes_of(n)))), None)
            if claim is None:
                study.pause(0.01)
                continue
            with log.open("a") as file:
                print(claim.number, file=file)
            time.sleep(0.03)
            study.finish(claim, trial_of(claim.number))
    assert sorted(study.finished()) == list(range(40))
"""


def _drivers(url: str, logs: list[Path]) -> list[subprocess.Popen[str]]:
    """Start drivers that work on one study, and let them begin together."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "src")))}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = [
        subprocess.Popen([sys.executable, "-c", DRIVER, url, str(log)], env=environment, text=True, **pipes)
        for log in logs
    ]
    for driver in started:
        assert driver.stdout.readline() == "ready\n", driver.communicate()[1]
    for driver in started:
        driver.stdin.write("go\n")
        driver.stdin.flush()
    return started


def test_two_drivers_share_the_candidates(server: postgres.Server, tmp_path: Path) -> None:
    logs = [tmp_path / "a", tmp_path / "b"]
    # A new data base: both make the tables at the same time.
    drivers = _drivers(server.create("shared"), logs)
    assert [driver.communicate(timeout=120)[1] for driver in drivers] == ["", ""]
    assert [driver.returncode for driver in drivers] == [0, 0]
    shares = [[int(n) for n in log.read_text().split()] for log in logs]
    assert sorted(shares[0] + shares[1]) == list(range(40)), "each candidate was evaluated once"
    assert min(map(len, shares)) >= 10, "by both"
    with Study.open(server.url("shared"), "shared") as study:
        assert study.finished() == {n: trial_of(n) for n in range(40)}


def test_what_a_killed_driver_had_claimed_is_done_by_the_other(
    server: postgres.Server, tmp_path: Path
) -> None:
    logs = [tmp_path / "a", tmp_path / "b"]
    killed, other = _drivers(server.create("killed"), logs)
    while not logs[0].exists() or len(logs[0].read_text().split()) < 5:
        time.sleep(0.005)
    killed.kill()
    killed.communicate()
    assert other.communicate(timeout=120)[1] == ""
    done = [int(n) for log in logs for n in log.read_text().split()]
    assert sorted(set(done)) == list(range(40))
    assert len(done) <= 41, "at most the running one was evaluated twice"


def test_a_server_that_is_restarted_is_found_again(server: postgres.Server) -> None:
    with Study.of(server.url(), "restarted", facts()) as study:
        carry_out(study, 0)
        server.stop()
        try:
            with pytest.raises(
                StorageError, match=r"127.0.0.1:\d+/postgres: the server does not answer"
            ) as raised:
                study.finished()
        finally:
            server.start()
        assert server.password not in str(raised.value)
        assert carry_out(study, 1) == trial_of(1)
    assert [t.state for t in _trials(server, "restarted")] == [TrialState.COMPLETE] * 2


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # pg8000 leaves its socket open
@pytest.mark.parametrize(
    ("database", "password", "message"),
    [
        ("postgres", "wrong", 'password authentication failed for user "tester"'),
        ("nothing", None, 'database "nothing" does not exist'),
    ],
)
def test_what_the_server_says_is_passed_on(
    server: postgres.Server, database: str, password: str | None, message: str
) -> None:
    with pytest.raises(StorageError) as raised:
        Study.of(server.url(database, password), "search", facts())
    said = str(raised.value)
    assert said.startswith(
        f"postgresql://tester@127.0.0.1:{server.port}/{database}: the data base cannot be used"
    )
    assert message in said
    assert server.password not in said
    assert "wrong" not in said
    gc.collect()


def test_a_data_base_without_studies(server: postgres.Server) -> None:
    url = server.create("bare")
    with pytest.raises(StorageError, match="there is no study here"):
        Study.open(url)
    assert Study.find(url) is None
