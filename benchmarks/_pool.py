"""Runs side by side, one thread each, whose rows are on the disk as soon as they are known."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from benchmarks._training import Protocol

Run = Callable[[Any, Protocol, Path], dict[str, Any]]


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file, none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def carry_out(
    pending: list[Any],
    run: Run,
    protocol: Protocol,
    folder: Path,
    runs: Path,
    *,
    workers: int,
    minutes: float,
) -> int:
    """Run tasks side by side and return how many have failed.

    A task has `network`, `budget`, `row`, `method` and `seed`. Those of the method "dense" run alone.
    """
    began, total, failed = time.monotonic(), len(pending), 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        running: dict[Future[dict[str, Any]], Any] = {}
        while pending or running:
            late = time.monotonic() - began > 60 * minutes
            while pending and len(running) < workers and not late:
                # Trained networks come first, alone: the runs that follow begin with them.
                if pending[0].method != "dense" and any(t.method == "dense" for t in running.values()):
                    break
                task = pending.pop(0)
                running[pool.submit(run, task, protocol, folder)] = task
            if not running:
                print(f"stopped after {minutes:.0f} minutes, {len(pending)} runs are left", file=sys.stderr)
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                try:
                    row = future.result()
                except Exception:
                    print(f"{task} failed", file=sys.stderr)
                    traceback.print_exc()
                    failed += 1
                    continue
                with runs.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")
                score = row.get("validation_accuracy")
                outcome = "cannot be met" if score is None else f"{score:.2%} (validation)"
                minutes_so_far = (time.monotonic() - began) / 60
                number = total - len(pending) - len(running)
                print(
                    f"[{number}/{total}, {minutes_so_far:.0f} min] {task.network} {task.budget} {task.row} "
                    f"seed {task.seed}: {outcome}",
                    file=sys.stderr,
                    flush=True,
                )
    return failed
