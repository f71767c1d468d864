from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from billhook.errors import BillhookError, BudgetError
from billhook.search.workers import open_workers
from billhook.search.workers.local import LocalWorkers
from billhook.search.workers.process import Method
from tests.unit.search.workers.objectives import Broken, Deadly, Offset, Slow, Sum, judged

ROWS = [[n, n] for n in range(6)]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Checks after every test of this file that no process is."""
    yield
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_candidates_are_judged_by_as_many_processes_as_wanted(method: Method) -> None:
    objective = Offset(10.0)
    with LocalWorkers(2, method) as workers:
        workers.use(objective)
        found = judged(workers, ROWS)
        # If two shared the objective, one would see what the other has added.
        assert [found[n].accuracy for n in range(6)] == [10.0 + sum(row) for row in ROWS]
        pids = {found[n].loss for n in range(6)}
        assert len(pids) == 2
        assert os.getpid() not in pids
        workers.use(Offset(20.0))
        assert judged(workers, [[0]])[0].accuracy == 20.0
    assert float(objective.offset) == 10.0, "nor does this process share it"


def test_errors_come_back(tmp_path: Path) -> None:
    with open_workers(2) as workers:
        workers.use(Broken())
        found = judged(workers, [[0], [1], [2]])
    assert isinstance(found[1], BudgetError)
    assert found[1].reachable == {"macs": 7.0}
    assert "trial 2 could not be evaluated: ZeroDivisionError: no images (" in str(found[2])


def test_a_candidate_whose_worker_is_killed_is_judged_again(tmp_path: Path) -> None:
    with open_workers(2) as workers:
        workers.use(Deadly(tmp_path, times=2))
        found = judged(workers, [[1], [0], [1], [1]])
    assert len(list(tmp_path.glob("death*"))) == 2
    assert [found[n].accuracy for n in range(4)] == [1.0] * 4


def test_a_candidate_that_always_kills_its_worker_is_named(tmp_path: Path) -> None:
    with open_workers(2) as workers:
        workers.use(Deadly(tmp_path, times=99))
        found = judged(workers, [[1], [0], [1]])
    assert isinstance(found[1], BillhookError)
    assert "trial 1 could not be evaluated: 3 workers died over it" in str(found[1])
    assert "was killed by signal 9" in str(found[1])
    assert found[2].accuracy == 1.0


def test_a_worker_that_is_killed_from_outside_is_replaced(tmp_path: Path) -> None:
    with open_workers(2) as workers:
        workers.use(Slow(tmp_path, 0.5))
        for number in range(4):
            workers.submit(number, np.array([number]))
        while not list(tmp_path.iterdir()):
            time.sleep(0.01)
        os.kill(int(next(tmp_path.iterdir()).name), signal.SIGKILL)
        found = []
        while len(found) < 4:
            found += workers.wait(30.0)
    assert sorted((n, o.accuracy) for n, o in found) == [(n, n / 10) for n in range(4)]
    assert len(list(tmp_path.iterdir())) == 3, "two workers and one in the place of the dead"


def test_waiting_ends_in_time(tmp_path: Path) -> None:
    with open_workers(2) as workers:
        workers.use(Slow(tmp_path, 30.0))
        workers.submit(0, np.array([0]))
        began = time.monotonic()
        assert workers.wait(0.1) == []
        assert time.monotonic() - began < 5.0
    assert time.monotonic() - began < 10.0, "what is running is not waited for in the end"


def test_another_objective_has_to_wait_for_what_is_on_its_way(tmp_path: Path) -> None:
    with open_workers(2) as workers:
        workers.use(Slow(tmp_path, 30.0))
        workers.submit(0, np.array([0]))
        with pytest.raises(RuntimeError, match="on their way"):
            workers.use(Sum())
