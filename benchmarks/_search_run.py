"""One row of the comparison of searchers: search, repair, score, fine-tune, score again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks._training import BATCH, Protocol, batches, dataset, example, finetuning, scores, trained
from billhook import Budget
from billhook.search.costs import SearchCosts
from billhook.search.driver import SearchResult, search
from billhook.search.problem import SearchProblem, Settings
from billhook.search.space import Genes
from billhook.search.winner import repaired
from billhook.train import evaluate, fit

ARGUMENTS: dict[str, dict[str, Any]] = {
    "resnet-20": {"stem_stride": 2, "in_channels": 1, "num_classes": 10},
    "small-vgg": {"in_channels": 1, "num_classes": 10},
    "resnet-56": {"stem_stride": 2, "in_channels": 1, "num_classes": 10},
}
# Other benchmarks train the same networks: what they have left is used.
ELSEWHERE = {"resnet-20": "sparse", "small-vgg": "sparse", "resnet-56": "fusion"}
ROUND_TO, LOWEST, IMAGES, REPAIR = 4, 0.125, 2000, "both"
BEST = 5  # candidates of a search that are scored: one accuracy is luck, their mean is less so


@dataclass(frozen=True)
class Task:
    """One run.

    Attributes:
        network: Name in the zoo.
        part: Which comparison it belongs to.
        row: Name of the row.
        method: Searcher; "dense" for the network that all begin with, "uniform" for equal fractions.
        options: Of the searcher.
        macs: Bound on the MACs, relative to the dense network.
        trials: Candidates that are evaluated.
        images: Validation images that judge a candidate; others score the winner.
        seed: Of the dense network, of the search and of the training.
    """

    network: str
    part: str = "budget"
    row: str = "dense"
    method: str = "dense"
    options: Mapping[str, Any] = field(default_factory=dict)
    macs: float = 1.0
    trials: int = 0
    images: int = IMAGES
    seed: int = 0

    @property
    def budget(self) -> str:
        """The bound in words."""
        return f"{self.macs:.0%} of the MACs"

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells one run from another."""
        return key(asdict(self))


def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what tells one finished row from another."""
    return tuple(row[n] for n in ("network", "part", "row", "macs", "seed"))


def dense(network: str, seed: int, protocol: Protocol, folder: Path) -> nn.Module:
    """Return the trained network that all rows begin with; from another benchmark if one has trained it."""
    other = folder.parent / ELSEWHERE[network]
    name = f"{network}_{seed}_{protocol.dense_epochs}_{protocol.batches}.safetensors"
    where = other if (other / name).exists() else folder
    return trained(network, ARGUMENTS[network], seed, protocol, where)


def make_problem(
    model: nn.Module, budget: Budget | None, protocol: Protocol, seed: int, **settings: Any
) -> SearchProblem:
    """Return the search that all methods are given; `settings` differ from those of the comparison."""
    return SearchProblem(
        model,
        example(),
        budget,
        data=batches(protocol, seed),
        validation=dataset().evaluation("validation"),
        settings=Settings(**{"lowest": LOWEST, "images": IMAGES, "repair": REPAIR, **settings}),
        seed=seed,
        round_to=ROUND_TO,
    )


def run(task: Task, protocol: Protocol, folder: Path) -> dict[str, Any]:
    """Return the finished row."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    model = dense(task.network, task.seed, protocol, folder)
    common = {**asdict(task), "protocol": asdict(protocol), "conditions": conditions()}
    if task.method == "dense":
        found = {
            "before_accuracy": score(model, task.images),
            "others": sum(len(y) for _, y in others(task.images)),
            **_scores(model),
        }
        return {**common, **found, "seconds": round(time.perf_counter() - began, 1)}
    problem = make_problem(model, Budget(macs=task.macs), protocol, task.seed, images=task.images)
    genes, found, told = _choice(task, problem, folder)
    decided = time.perf_counter()
    if found is None:
        small = repaired(problem, problem.space.plan(genes, model)).eval()
    else:
        small = found.network().eval()
        told["best_accuracies"] = [score(found.network(t).eval(), task.images) for t in found.ranked[:BEST]]
    before = score(small, task.images)
    training = finetuning(task.seed, protocol)
    fit(small, batches(protocol, task.seed), config=training, progress=False)
    costs = SearchCosts(problem.space, problem.budget)
    return {
        **common,
        **told,
        "genes": genes.tolist(),
        "fractions": {
            g.target: round(float(f), 4)
            for g, f in zip(problem.space.genes, problem.space.fractions(genes)[0], strict=True)
        },
        "macs_left": float(costs.relative(genes, "macs")[0]),
        "params_left": float(costs.relative(genes, "params")[0]),
        "before_accuracy": before,
        "after_accuracy": score(small.eval(), task.images),
        **_scores(small),
        "search_seconds": round(decided - began, 1),
        "seconds": round(time.perf_counter() - began, 1),
    }


def _choice(
    task: Task, problem: SearchProblem, folder: Path
) -> tuple[Genes, SearchResult | None, dict[str, Any]]:
    """Return the winner of a search, what the search has found, and what is to be written down about it."""
    if task.method == "uniform":
        return uniform(SearchCosts(problem.space, problem.budget), task.seed), None, {}
    found = searched(problem, task, folder)
    assert found.best is not None, "no candidate within the budget"
    told = {
        "searched_accuracy": found.best.accuracy,
        "accuracies": [round(t.accuracy, 4) for t in found.trials],
        "evaluations": len(found.trials),
        "repeated": sum(t.cached for t in found.trials),
        "evaluation_seconds": round(sum(t.seconds for t in found.trials), 1),
        "judged_by": sorted({t.key.split()[0] for t in found.trials}),
    }
    return np.array(found.best.genes, dtype=np.int64), found, told


def uniform(costs: SearchCosts, seed: int) -> Genes:
    """Return the largest uniform fraction within the limits, raised at random while it still fits."""
    for fraction in np.linspace(1, 0, 1001):
        genes = costs.space.nearest(np.full(len(costs.space.genes), fraction))[0]
        if costs.within(genes)[0]:
            return costs.fitted(genes, np.random.default_rng(seed))
    costs.require_reachable()
    raise AssertionError("the lowest candidate is within all limits")


def searched(problem: SearchProblem, task: Task, folder: Path, **arguments: Any) -> SearchResult:
    """Return what a search finds, in a new study."""
    place = study_of(task, folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    for old in place.parent.glob(f"{place.name}*"):  # of a row that was never finished
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    return search(problem, task.method, options=task.options, trials=task.trials, study=place, **arguments)


def others(images: int) -> list[Any]:
    """Return the validation images that judge no candidate of a search."""
    pairs = list(dataset().evaluation("validation", 500).epoch(0))
    inputs, targets = (torch.cat(parts)[images:] for parts in zip(*pairs, strict=True))
    return list(zip(inputs.split(500), targets.split(500), strict=True))


def score(model: nn.Module, images: int) -> float:
    """Return the accuracy in float32 on the validation images that judged no candidate."""
    return evaluate(model, others(images)).accuracy


def conditions() -> dict[str, Any]:
    """Return what else a figure depends on."""
    return {
        "data": dataset().name,
        "round_to": ROUND_TO,
        "lowest": LOWEST,
        "repair": REPAIR,
        "batch": BATCH,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def rescored(problem: SearchProblem, images: int) -> SearchProblem:
    """Return the same search on the validation images that judge no candidate."""
    pairs = others(images)
    count = sum(len(y) for _, y in pairs)
    settings = replace(problem.settings, images=count)
    return replace(problem, validation=pairs, settings=settings, captured=problem.graph)


def _scores(model: nn.Module) -> dict[str, float]:
    return {f"{split}_accuracy": value for split, value in scores(model).items()}


def study_of(task: Task, folder: Path) -> Path:
    """Return the file of a run's study."""
    name = "-".join(str(part) for part in task.key).replace(" ", "_").replace(",", "")
    return folder / "studies" / f"{name}.db"
