"""One row of the comparison of pruning with and without fusion: decide, remove, train, lower, score."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks._training import (
    Protocol,
    batches,
    calibration,
    dataset,
    example,
    finetuning,
    scores,
    trained,
    untrained,
)
from billhook import Budget, BudgetError, Plan, apply, capture, shrink
from billhook.deploy import lower_by_cost
from billhook.fuse import Fusion, fuse, lower
from billhook.graph.layers import LayeredNetwork
from billhook.graph.storage import save
from billhook.methods import methods
from billhook.train import FitConfig, evaluate, fit, recalibrate_batchnorm

# Shortcuts without weights, as in the paper that made these networks: strides and zeros where shapes change.
ARGUMENTS: dict[str, Any] = {"stem_stride": 2, "in_channels": 1, "num_classes": 10}
NETWORKS = ("resnet-20", "resnet-56")
DECIDING = FitConfig(epochs=1, lr=0.05, schedule="cosine")


@dataclass(frozen=True)
class Task:
    """One run.

    Attributes:
        network: Name in the zoo.
        latency: Bound relative to the dense network's, on `backend`.
        backend: Runtime that the bound is measured in.
        row: Name of the row.
        method: Name of a method or criterion; "dense" for the network that all begin with.
        settings: Further arguments of `shrink`.
        fused: Prune the fused network, and lower it by measured cost.
        seed: Of the dense network, of the decision and of the training.
    """

    network: str
    latency: float = 1.0
    backend: str = ""
    row: str = "dense"
    method: str = "dense"
    settings: Mapping[str, Any] = field(default_factory=dict)
    fused: bool = False
    seed: int = 0

    @property
    def budget(self) -> str:
        """The budget in words."""
        return f"{self.latency:.0%} of the time on {self.backend}" if self.backend else "all of the time"

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells one run from another."""
        return (self.network, self.latency, self.backend, self.row, self.seed)


def dense(network: str, seed: int, protocol: Protocol, folder: Path) -> nn.Module:
    """Return the trained network that all rows begin with."""
    return trained(network, ARGUMENTS, seed, protocol, folder)


def run(task: Task, protocol: Protocol, folder: Path) -> dict[str, Any]:
    """Return the finished row; plan, weights and forms of shortcuts are kept for the measuring."""
    torch.set_num_threads(1)
    model = dense(task.network, task.seed, protocol, folder)
    if task.method == "dense":
        return _row(task, protocol, model, {})
    images, per_epoch = calibration(task.seed), len(batches(protocol, 0))
    total = protocol.epochs * per_epoch
    trains = task.method in methods.names() and methods.info(task.method).trains
    steps = round(protocol.deciding * total) if trains else 0
    began = time.perf_counter()
    before: nn.Module = model
    if task.fused:
        before = fuse(model, example(), Fusion(), data=images).network
    try:
        outcome = shrink(
            before,
            example(),
            budget=Budget(latency=task.latency),
            method=task.method,
            data=batches(protocol, task.seed) if trains else images,
            backend=task.backend,
            seed=task.seed,
            training=replace(DECIDING, steps=steps, precision=protocol.precision) if trains else None,
            **task.settings,
        )
    except BudgetError as e:  # the narrowest network is too slow, which is a result
        return {**_task(task), "unreachable": e.reachable, "protocol": asdict(protocol)}
    small = outcome.small()
    recalibrate_batchnorm(small, images, len(images))
    decided = time.perf_counter() - began
    after_pruning = evaluate(small, dataset().evaluation("validation")).accuracy
    config = replace(finetuning(task.seed, protocol), steps=total - steps)
    fit(small, batches(protocol, task.seed + 100), config=config, progress=False)
    small.eval()
    forms: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    if task.fused:
        began = time.perf_counter()
        lowered = lower_by_cost(small, example(), backend=task.backend)
        forms, ratios = dict(lowered.forms), dict(lowered.ratios)
    save(place(folder, task), small, outcome.plan)
    graph = outcome.plan.graph
    return _row(
        task,
        protocol,
        small,
        {
            "decision_seconds": round(decided, 2),
            "lowering_seconds": round(time.perf_counter() - began, 1) if task.fused else 0,
            "validation_after_pruning": after_pruning,
            "blocks_gone": len(graph.dropped(outcome.plan)),
            "blocks": len(graph.branches),
            "forms": forms,
            "form_ratios": ratios,
            "reached": dict(outcome.plan.made_by.get("reached", {})),
        },
    )


def place(folder: Path, task: Task) -> Path:
    """Return where the network of a run lies."""
    name = f"{task.network}_{task.latency}_{task.backend}_{task.row}_{task.seed}"
    return folder / "networks" / name.replace(" ", "-").replace(",", "")


def shipped(task: Task, forms: Mapping[str, Any], folder: Path) -> nn.Module:
    """Return a network with the widths and the form of a finished run; its weights are random."""
    plan = Plan.load(place(folder, task) / "plan.json")
    small = apply(untrained(task.network, ARGUMENTS, task.seed), plan).eval()
    if not task.fused:
        return small
    assert isinstance(small, LayeredNetwork)
    return lower(small, example(), forms=forms or "sum")


def _row(task: Task, protocol: Protocol, small: nn.Module, more: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_task(task),
        **{f"{split}_accuracy": value for split, value in scores(small).items()},
        "cost": capture(small, example()).costs.cost().to_dict(),
        **more,
        "protocol": asdict(protocol),
    }


def _task(task: Task) -> dict[str, Any]:
    return {**{k: v for k, v in asdict(task).items() if k != "settings"}, "settings": dict(task.settings)}
