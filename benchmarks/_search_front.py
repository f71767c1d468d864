"""JCW on the engine's latencies: channels and densities together against either alone, and end to end."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks._search_run import Task, conditions, dense, make_problem, rescored, searched
from benchmarks._training import Protocol, example
from billhook.deploy import PlanLatency
from billhook.search.latencies.model import CandidateLatency
from billhook.search.latency import known_latency, make_latency
from billhook.search.objective import InheritedWeights
from billhook.search.pareto import front, hypervolume
from billhook.search.problem import SearchProblem
from billhook.search.space import Floats, Genes, Space

# Least density: JCW's own. Half of the channels, its other bound, would end the front of channels early.
NETWORK, PATTERN, LEAST = "resnet-20", "4x1|dense", 0.3
# Row → settings of its candidates, which are among those of the first row.
ROWS: dict[str, dict[str, Any]] = {
    "channels and densities": {"pattern": PATTERN, "least_density": LEAST},
    "channels": {},
    "densities": {"pattern": PATTERN, "least_density": LEAST, "channels": False},
}
OPTIONS = {"evaluation": "inherited", "channels": 0.25, "density": LEAST, "population": 20}
REFERENCE = (1.05, 0.3)  # latency relative to the dense network, error: what counts as worst
LEVELS = (0.7, 0.5, 0.35)
TIMED = 4  # points of a front
TABLE = "latency_resnet-20.json"


def tasks(seed: int, trials: int) -> Iterator[Task]:
    """Yield a run for each kind of candidates."""
    for row in ROWS:
        yield Task(NETWORK, "front", row, "jcw", OPTIONS, 1.0, trials, seed=seed)


class OfTheWhole(CandidateLatency):
    """Latency of candidates by a model of candidates with more genes; those that are missing lose nothing.

    Fronts are only compared if the same model is behind them.

    Args:
        space: The candidates.
        whole: Candidates with all genes.
        model: Of the latter.
    """

    kind = "table"

    def __init__(self, space: Space, whole: Space, model: CandidateLatency) -> None:
        at = {gene.name: i for i, gene in enumerate(whole.genes)}
        for gene in space.genes:
            assert whole.genes[at[gene.name]].values == gene.values, gene.name
        self._columns = [at[gene.name] for gene in space.genes]
        self._highest, self._model, self.record = whole.highest, model, model.record

    @property
    def original(self) -> float:
        """The seconds of the network that loses nothing."""
        return float(self._model.original)

    def of(self, rows: Genes) -> Floats:
        """Return the seconds of rows of genes: [rows]."""
        rows = np.atleast_2d(rows)
        wide = np.tile(self._highest, (len(rows), 1))
        wide[:, self._columns] = rows
        seconds: Floats = self._model.of(wide)
        return seconds

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: the model of all genes."""
        return self._model.to_dict()


def problem_of(row: str, model: nn.Module, protocol: Protocol, seed: int) -> SearchProblem:
    """Return the search of a row."""
    made = make_problem(model, None, protocol, seed, metric="latency", latency="table", **ROWS[row])
    return replace(made, backend="billhook")


def measure_table(protocol: Protocol, folder: Path) -> None:
    """Time layers and whole candidates, unless that is done; nothing else should be at work."""
    place = folder / TABLE
    if not place.exists():
        whole = problem_of(next(iter(ROWS)), dense(NETWORK, 0, protocol, folder), protocol, 0)
        place.write_text(json.dumps(make_latency(whole).to_dict()))


def latency_of(problem: SearchProblem, protocol: Protocol, folder: Path) -> OfTheWhole:
    """Return the latency of candidates by the table of candidates with all genes."""
    whole = problem_of(next(iter(ROWS)), problem.model, protocol, problem.seed)
    model = known_latency(whole, json.loads((folder / TABLE).read_text()))
    return OfTheWhole(problem.space, whole.space, model)


def run(task: Task, protocol: Protocol, folder: Path) -> dict[str, Any]:
    """Return the finished row: the front that a search has found, scored on other images."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    model = dense(task.network, task.seed, protocol, folder)
    problem = problem_of(task.row, model, protocol, task.seed)
    latency = latency_of(problem, protocol, folder)
    found = searched(problem, task, folder, latency=latency)
    costs = np.array([(t.costs["latency"] / latency.original, 1 - t.accuracy) for t in found.trials])
    seen: dict[tuple[int, ...], int] = {found.trials[i].genes: int(i) for i in front(costs)}
    judge = InheritedWeights(rescored(problem, task.images))
    points = [
        {
            "trial": found.trials[i].number,
            "genes": list(genes),
            "latency": float(costs[i, 0]),
            "searched_accuracy": found.trials[i].accuracy,
            "accuracy": judge.evaluate(np.array(genes, dtype=np.int64)).accuracy,
        }
        for genes, i in sorted(seen.items(), key=lambda item: costs[item[1], 0])
    ]
    scored = [(p["latency"], 1 - p["accuracy"]) for p in points]
    kept = front(scored)
    return {
        **asdict(task),
        "protocol": asdict(protocol),
        "conditions": conditions(),
        "pattern": ROWS[task.row].get("pattern"),
        "original": latency.original,
        "latency": str(latency.record),
        "reference": REFERENCE,
        "dense_accuracy": judge.evaluate(problem.space.highest).accuracy,
        "front": [points[i] for i in kept],
        "evaluations": len(found.trials),
        "all": [[round(float(c[0]), 5), round(1 - float(c[1]), 4)] for c in costs],
        "searched_volume": hypervolume(costs, REFERENCE),
        "volume": hypervolume(scored, REFERENCE),
        "best_at": {f"{level:.0%}": best_at([points[i] for i in kept], level) for level in LEVELS},
        "validation_accuracy": max(p["accuracy"] for p in points),
        "seconds": round(time.perf_counter() - began, 1),
    }


def best_at(points: Sequence[Mapping[str, Any]], level: float) -> float | None:
    """Return the best accuracy of the points within a latency; None if there is none."""
    return max((p["accuracy"] for p in points if p["latency"] <= level), default=None)


def timings(
    fronts: Sequence[Mapping[str, Any]], timed: Collection[Any], protocol: Protocol, folder: Path
) -> Iterator[dict[str, Any]]:
    """Yield points of the fronts of seed 0, measured end to end in the engine: each a row."""
    for run_ in (r for r in fronts if r["seed"] == 0):
        points = [p for p in run_["front"] if p["accuracy"] >= 1 - REFERENCE[1]]
        at = np.unique(np.linspace(0, len(points) - 1, TIMED).round().astype(int)) if points else []
        wanted = [points[i] for i in at if (run_["row"], points[i]["trial"]) not in timed]
        if not wanted:
            continue
        model = dense(run_["network"], 0, protocol, folder)
        space = problem_of(run_["row"], model, protocol, 0).space
        with PlanLatency(model, example(), backend="billhook") as latency:
            for point in wanted:
                sample = latency.confirm(space.plan(np.array(point["genes"], dtype=np.int64), model))
                yield {
                    "network": run_["network"],
                    "row": run_["row"],
                    "seed": 0,
                    "trial": point["trial"],
                    "accuracy": point["accuracy"],
                    "table": point["latency"],
                    "measured": sample.candidate / sample.original,
                    "original": sample.original,
                    "conditions": conditions(),
                }
