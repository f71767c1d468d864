"""How many candidates a search judges in a second, and what a second worker adds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks._search_run import IMAGES, Task, conditions, dense, make_problem, searched
from benchmarks._training import Protocol
from billhook import Budget
from billhook.search.driver import Progress
from billhook.search.studies.trial import Trial

NETWORK, MACS = "resnet-20", 0.5
MEASURED = ("random", "amc", "agmc")
TURNS = 3  # of one worker and of two, one after the other
SETTLING = 10  # trials of a turn that do not count: processes are starting


class Clock:
    """When every trial of a search was done."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.seconds: list[float] = []

    def __call__(self, trial: Trial, progress: Progress) -> None:
        """Note a trial."""
        self.ends.append(time.perf_counter())
        self.seconds.append(trial.seconds)

    @property
    def wall(self) -> float:
        """Seconds from the beginning of the first trial to the end of the last."""
        return self.ends[-1] - self.ends[0] + self.seconds[0]

    def rate(self, settled: int) -> float:
        """Return trials per second after the first ones."""
        return (len(self.ends) - settled) / (self.ends[-1] - self.ends[settled - 1])


def rows(
    methods: Mapping[str, Mapping[str, Any]],
    measured: Collection[str],
    trials: int,
    protocol: Protocol,
    folder: Path,
) -> Iterator[dict[str, Any]]:
    """Yield what is not measured yet: a row for each method, and one for two workers."""
    torch.set_num_threads(1)
    common = {"network": NETWORK, "macs": MACS, "images": IMAGES, "seed": 0}
    for method in MEASURED:
        if method in methods and method not in measured:
            clock = _clocked(method, methods[method], trials, protocol, folder)
            judged = sum(s > 0 for s in clock.seconds)  # what was known costs nothing, and counts for nothing
            yield {
                **common,
                "row": method,
                "options": dict(methods[method]),
                "trials": trials,
                "judged": judged,
                "seconds": round(clock.wall, 2),
                "evaluation_seconds": round(sum(clock.seconds), 2),
                "rate": judged / clock.wall,
                "share": sum(clock.seconds) / clock.wall,
                "conditions": conditions(),
            }
    if "random" in methods and "two workers" not in measured:
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(TURNS):
            for workers in rates:
                clock = _clocked("random", {}, trials, protocol, folder, workers=workers, parallel=2)
                rates[workers].append(clock.rate(SETTLING))
        yield {
            **common,
            "row": "two workers",
            "options": {},
            "trials": trials,
            "rates": {str(w): found for w, found in rates.items()},
            "rate": statistics.median(rates[2]),
            "ratio": statistics.median(b / a for a, b in zip(rates[1], rates[2], strict=True)),
            "conditions": conditions(),
        }


def _clocked(
    method: str, options: Mapping[str, Any], trials: int, protocol: Protocol, folder: Path, **arguments: Any
) -> Clock:
    """Return the times of a whole search."""
    clock = Clock()
    model = dense(NETWORK, 0, protocol, folder)
    task = Task(NETWORK, "speed", method, method, options, MACS, trials)
    problem = make_problem(model, Budget(macs=MACS), protocol, 0)
    searched(problem, task, folder, on_trial=clock, **arguments)
    return clock
