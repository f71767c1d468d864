"""What a policy takes with it: AGMC learns on one network and goes on with another."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks._search_run import Task, conditions, dense, make_problem, searched, study_of
from benchmarks._training import Protocol
from billhook import Budget

SOURCE, TARGET, MACS = "resnet-20", "resnet-56", 0.5
POLICY = "policy*.safetensors"  # what AGMC leaves in the folder of a study
# Row → options. A policy that has learned needs no random candidates first; scratch is tried without, too.
ROWS: dict[str, dict[str, Any]] = {
    "scratch": {},
    "scratch, no warm-up": {"warmup": 0},
    "transferred": {"warmup": 0},
}
SHARE = 0.4  # evaluations of a search on the target, of those on the source


def task(seed: int, trials: int) -> Task:
    """Return the run of a seed: the search on the source, and all of those on the target."""
    return Task(TARGET, "transfer", f"from {SOURCE}", "agmc", {}, MACS, trials, seed=seed)


def run(task: Task, protocol: Protocol, folder: Path) -> dict[str, Any]:
    """Return the finished row: the accuracies of the candidates of every search, in order."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    learning = replace(task, network=SOURCE, part="transfer source", row="source")
    searched(_problem(learning, protocol, folder), learning, folder)
    (policy,) = sorted(study_of(learning, folder).with_suffix(".db.d").rglob(POLICY))
    problem = _problem(task, protocol, folder)
    accuracies = {}
    for row, options in ROWS.items():
        own = {**options, "pretrained": str(policy)} if row == "transferred" else options
        one = replace(task, row=row, options=own, trials=max(10, round(SHARE * task.trials)))
        accuracies[row] = [round(t.accuracy, 4) for t in searched(problem, one, folder).trials]
    return {
        **asdict(task),
        "protocol": asdict(protocol),
        "conditions": conditions(),
        "source": SOURCE,
        "rows": ROWS,
        "accuracies": accuracies,
        "validation_accuracy": max(accuracies["transferred"]),
        "seconds": round(time.perf_counter() - began, 1),
    }


def _problem(task: Task, protocol: Protocol, folder: Path) -> Any:
    model = dense(task.network, task.seed, protocol, folder)
    return make_problem(model, Budget(macs=task.macs), protocol, task.seed, images=task.images)
