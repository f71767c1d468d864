"""What workers on a Ray cluster do; run by `test_ray_.py`."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from billhook.errors import BillhookError, BudgetError, InputError
from billhook.search.workers import Workers, open_workers
from billhook.search.workers.ray_ import RayWorkers, _connect
from tests.arch.source import ROOT
from tests.unit.search.workers.objectives import Broken, Deadly, Offset, Slow, judged

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Nobody else gets into the clusters of these tests, and they write no token into the home folder."""
    file = tmp_path_factory.mktemp("ray") / "token"
    file.write_text(secrets.token_hex(32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
        patch.setenv("RAY_AUTH_MODE", "")  # put back in the end: Ray sets it when it starts a cluster
        patch.delenv("RAY_AUTH_MODE")
        paths = os.pathsep.join(map(str, (ROOT, ROOT / "src")))
        yield {**os.environ, "RAY_AUTH_MODE": "token", "PYTHONPATH": paths}


CLUSTER = """
import ray, sys
print(ray.init("local", num_cpus=1, include_dashboard=False).address_info["gcs_address"], flush=True)
sys.stdin.read()
"""
DRIVER = """
import sys
from billhook.search.workers import open_workers
from tests.unit.search.workers.objectives import Offset, judged

with open_workers(1, sys.argv[1]) as workers:
    workers.use(Offset(1.0))
    print(judged(workers, [[0], [5]])[1].accuracy)
"""


def test_a_running_cluster_is_used_and_left_alone(token: dict[str, str]) -> None:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", CLUSTER], env=token, text=True, **pipes) as cluster:
        address = cluster.stdout.readline().strip()
        driver = [sys.executable, "-c", DRIVER, address]
        done = subprocess.run(driver, env=token, capture_output=True, text=True, check=False)
        with pytest.raises(InputError, match="wants its token: set RAY_AUTH_MODE=token"):
            _connect(address, 1, 6.0)  # it is still there, and this process has not set the mode
        cluster.communicate()
    assert done.stdout == "6.0\n", done.stderr


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """Two actors on a Ray cluster of this machine."""
    with open_workers(2, "local") as started:
        yield started


def test_candidates_are_judged_by_actors(workers: Workers) -> None:
    objective = Offset(10.0)
    workers.use(objective)
    rows = [[n, n] for n in range(12)]
    found = judged(workers, rows)
    assert [found[n].accuracy for n in range(12)] == [10.0 + sum(row) for row in rows]
    assert os.getpid() not in {found[n].loss for n in range(12)}
    workers.use(Offset(20.0))
    assert judged(workers, [[0]])[0].accuracy == 20.0
    assert float(objective.offset) == 10.0


def test_errors_come_back(workers: Workers) -> None:
    workers.use(Broken())
    found = judged(workers, [[0], [1], [2]])
    assert isinstance(found[1], BudgetError)
    assert found[1].reachable == {"macs": 7.0}
    assert "trial 2 could not be evaluated: ZeroDivisionError: no images (" in str(found[2])


def test_an_actor_that_is_killed_is_replaced(workers: Workers, tmp_path: Path) -> None:
    workers.use(Slow(tmp_path, 1.0))
    for number in range(4):
        workers.submit(number, np.array([number]))
    while not list(tmp_path.iterdir()):
        assert not workers.wait(0.05)
    killed = int(next(tmp_path.iterdir()).name)
    os.kill(killed, signal.SIGKILL)
    found = []
    while len(found) < 4:
        found += workers.wait(60.0)
    assert sorted((n, o.accuracy) for n, o in found) == [(n, n / 10) for n in range(4)]
    assert killed not in {o.loss for _, o in found}


def test_a_candidate_that_always_kills_its_actor_is_named(workers: Workers, tmp_path: Path) -> None:
    workers.use(Deadly(tmp_path, times=99))
    found = judged(workers, [[1], [0], [1]])
    assert isinstance(found[1], BillhookError)
    assert "trial 1 could not be evaluated: 3 workers died over it" in str(found[1])
    assert [found[n].accuracy for n in (0, 2)] == [1.0, 1.0]


def test_more_workers_than_the_cluster_has_room_for_are_refused(workers: Workers) -> None:
    with (
        pytest.raises(InputError, match=r"at 'local' has 2 CPUs, too few for 5 workers"),
        RayWorkers(5, "local"),
    ):
        pass
    workers.use(Offset(1.0))
    assert judged(workers, [[0]])[0].accuracy == 1.0, "the cluster is still there"


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port at which somebody listens who is no Ray cluster."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nowhere", "the Ray address 'nowhere' is none: give 'local', 'auto' or HOST:PORT"),
        ("127.0.0.1:port", "the Ray address '127.0.0.1:port' is none"),
        ("127.0.0.1:99999", "the Ray address '127.0.0.1:99999' is none"),
        ("ray://127.0.0.1:10001", "search on a machine of the cluster, with 'auto' or HOST:PORT"),
        ("127.0.0.1:1", r"no Ray cluster answers at '127.0.0.1:1' \(.*refused\): check the address"),
        ("no-such-host.invalid:6379", r"no Ray cluster answers at 'no-such-host.invalid:6379'"),
    ],
)
def test_an_address_without_a_cluster_is_refused_at_once(address: str, message: str) -> None:
    began = time.monotonic()
    with pytest.raises(InputError, match=message):
        _connect(address, 2, 20.0)
    assert time.monotonic() - began < 15.0


def test_an_address_that_does_not_answer_is_given_up(deaf: int) -> None:
    with pytest.raises(InputError, match=rf"no Ray cluster answers at '127.0.0.1:{deaf}' \(not within 2 s"):
        _connect(f"127.0.0.1:{deaf}", 2, 2.0)
