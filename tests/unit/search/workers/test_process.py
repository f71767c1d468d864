from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.arch.source import ROOT

PARENT = """
import signal
import sys
from pathlib import Path
import numpy as np
from billhook.search.workers import open_workers
from tests.unit.search.workers.objectives import Slow

# Whoever starts this may ignore Ctrl-C or hold it back, as a shell does for what is in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
with open_workers(2) as workers:
    workers.use(Slow(Path(sys.argv[1]), 300.0))
    workers.submit(0, np.array([0]))
    workers.submit(1, np.array([0]))
    workers.wait()
"""


@contextmanager
def _busy(folder: Path) -> Generator[tuple[subprocess.Popen[bytes], list[int]]]:
    """A parent whose two workers are busy, with their numbers."""
    script = folder / "parent.py"
    script.write_text(PARENT)
    (folder / "pids").mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT)))}
    command = [sys.executable, str(script), str(folder / "pids")]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as parent:
        pids: list[int] = []
        try:
            while len(pids) < 2:
                assert parent.poll() is None, parent.communicate()
                time.sleep(0.02)
                pids = [int(p.name) for p in (folder / "pids").iterdir()]
            yield parent, pids
        finally:
            for pid in (parent.pid, *pids):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _gone(pids: list[int], within: float = 10.0) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if not any(psutil.pid_exists(p) and psutil.Process(p).status() != "zombie" for p in pids):
            return True
        time.sleep(0.05)
    return False


def test_workers_do_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    with _busy(tmp_path) as (parent, pids):
        parent.kill()
        parent.wait()
        assert _gone(pids)


def test_ctrl_c_ends_parent_and_workers(tmp_path: Path) -> None:
    with _busy(tmp_path) as (parent, pids):
        for pid in (*pids, parent.pid):  # a terminal sends it to all of them
            os.kill(pid, signal.SIGINT)
        said = parent.communicate(timeout=30)[1].decode()
        assert said.strip().endswith("KeyboardInterrupt")
        assert said.count("Traceback") == 1, "that of the parent"
        assert _gone(pids)
