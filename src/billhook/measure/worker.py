"""The process that times one artifact: `python -m billhook.measure.worker`.

It reads one JSON request per line from stdin and answers each with one JSON line:

    {"op": "open", "directory": …, "module": …, "class": …, "cores": […], "threads": 1, "batch": 1, "seed": 0}
    {"op": "probe", "cores": […]}            instead of "open": time a matrix product, not a network
    {"op": "round", "seconds": 0.5, "clock": "core"}     run for that long
    {"op": "memory"}                         peak memory since "open" began

It imports neither torch nor the command line, so that what is timed is what would be shipped.
"""

from __future__ import annotations

import gc
import importlib
import json
import math
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from billhook.errors import MissingExtraError
from billhook.measure.artifact import Artifact
from billhook.measure.rounds import Clock

PROBE_SIZE = 192
"""Side of the probe's matrices: 14 MFLOP, in cache, about 0.1 ms; slow when the core is slowed."""

SHORTEST_SAMPLE = 1e-4
"""Seconds. Below it the resolution of the processor clock, 1 µs, would show; it may even read 0."""

Run = Callable[[], object]


class Worker:
    """State of the process: what a round runs, and the memory before it was loaded."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._memory_before = 0

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the reply to one request."""
        op = request["op"]
        if op == "open":
            return self._open(request)
        if op == "probe":
            _pin(request["cores"])
            matrix = np.random.default_rng(0).standard_normal((PROBE_SIZE, PROBE_SIZE), dtype=np.float32)
            self._run = lambda: matrix @ matrix
            return {}
        if op == "round":
            if self._run is None:
                raise RuntimeError("a round was asked for before anything was opened")
            return time_round(self._run, request["seconds"], request["clock"])
        if op == "memory":
            return {"bytes": max(0, _peak_memory() - self._memory_before)}
        raise RuntimeError(f"unknown request {op!r}")

    def _open(self, request: dict[str, Any]) -> dict[str, Any]:
        _pin(request["cores"])
        backend = getattr(importlib.import_module(request["module"]), request["class"])()
        # The process that asked has compared the hashes already.
        artifact = Artifact.load(Path(request["directory"]), check_hashes=False)
        inputs = artifact.random_inputs(request["batch"], request["seed"])
        backend.prepare()
        _forget_peak_memory()
        self._memory_before = psutil.Process().memory_info().rss
        session = backend.open(artifact, request["threads"])
        self._run = lambda: session.run(inputs)
        self._run()
        return {}


def time_round(run: Run, seconds: float, clock: Clock) -> dict[str, Any]:
    """Call `run` for about `seconds` and return statistics of the calls.

    One call before the clock starts brings code and weights back into the caches which another worker's
    turn has emptied. Runs that are short for the clock are timed several at a time.
    """
    wall, core = time.perf_counter, time.process_time
    begin = wall()
    run()
    together = math.ceil(SHORTEST_SAMPLE / max(wall() - begin, 1e-7))
    wall_times: list[float] = []
    core_times: list[float] = []
    gc.disable()
    end = wall() + seconds
    while not wall_times or wall() < end:
        core_begin, begin = core(), wall()
        for _ in range(together):
            run()
        wall_times.append((wall() - begin) / together)
        core_times.append((core() - core_begin) / together)
    gc.enable()
    # A hypervisor takes stolen time back from the processor clock, which then stands still: no measurement.
    ticked = [t for t in core_times if t > 0]
    times = ticked if clock == "core" and ticked else wall_times
    return {
        "median": statistics.median(times),
        "minimum": min(times),
        "maximum": max(times),
        "wall_median": statistics.median(wall_times),
        "runs": len(times) * together,
        "core_share": sum(core_times) / sum(wall_times),
    }


def _pin(cores: list[int]) -> None:
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def _forget_peak_memory() -> None:
    """Start a new peak where Linux allows it; elsewhere imports count into the peak."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_memory() -> int:
    # Not resource.ru_maxrss: a child inherits it from the process that started it.
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    info = psutil.Process().memory_info()
    return int(getattr(info, "peak_wset", info.rss))


def main() -> None:
    """Serve requests until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked; it ends this one
    # Runtimes may print; the replies get their own copy of stdout and everything else goes to stderr.
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        worker = Worker()
        for line in sys.stdin:
            try:
                reply = worker.answer(json.loads(line))
            except MissingExtraError as e:
                reply = {"library": e.library, "extra": e.extra}
            except Exception as e:
                reply = {"error": f"{type(e).__name__}: {e}"}
            replies.write(json.dumps(reply) + "\n")
            replies.flush()


if __name__ == "__main__":
    main()
