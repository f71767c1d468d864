"""One row of the comparison of methods: decide, remove, train, score."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks._methods_torch_pruning import smaller
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
from billhook import Budget, apply, capture, shrink
from billhook.graph import Plan
from billhook.methods import methods
from billhook.train import FitConfig, evaluate, fit, recalibrate_batchnorm

NETWORKS: dict[str, dict[str, Any]] = {
    # Shortcuts are convolutions: Torch-Pruning 1.6.1 cannot prune a ResNet whose shortcuts pad with zeros.
    "resnet-20": {"stem_stride": 2, "shortcut": "B", "in_channels": 1, "num_classes": 10},
    "small-vgg": {"in_channels": 1, "num_classes": 10},
}
AT_INITIALISATION = ("snip", "grasp", "synflow")
TORCH_PRUNING = "Torch-Pruning: "
SCRATCH = ("scratch", "scratch_long")  # the widths of `l2` with uniform allocation, random weights


DECIDING = FitConfig(epochs=1, lr=0.05, schedule="cosine")


@dataclass(frozen=True)
class Task:
    """One run.

    Attributes:
        network: Name in the zoo.
        macs: Budget, relative.
        method: Name of a method, a criterion, or a control.
        seed: Of the dense network, of the decision and of the training.
        options: Of the method.
        label: Name of the row, if not the method's.
    """

    network: str
    macs: float
    method: str
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    allocator: str | None = None
    label: str = ""

    @property
    def budget(self) -> str:
        """The budget in words."""
        return f"{self.macs:.0%} of the MACs"

    @property
    def row(self) -> str:
        """Name of the row in the table."""
        return self.label or self.method


def fresh(network: str, seed: int) -> nn.Module:
    """Return the network with random weights."""
    return untrained(network, NETWORKS[network], seed)


def dense(network: str, seed: int, protocol: Protocol, folder: Path) -> nn.Module:
    """Return the trained network that all methods begin with."""
    return trained(network, NETWORKS[network], seed, protocol, folder)


def run(task: Task, protocol: Protocol, folder: Path) -> dict[str, Any]:
    """Return the finished row."""
    torch.set_num_threads(1)
    if task.method == "dense":
        return _row(task, protocol, dense(task.network, task.seed, protocol, folder), {})
    began = time.perf_counter()
    if task.method == "dense_longer":
        model = dense(task.network, task.seed, protocol, folder)
        fit(model, batches(protocol, task.seed + 100), config=finetuning(task.seed, protocol), progress=False)
        return _row(task, protocol, model, {"seconds": round(time.perf_counter() - began, 1)})
    plan, small, left = _decided(task, protocol, folder)
    decided = time.perf_counter() - began
    after_pruning = evaluate(small, dataset().evaluation("validation")).accuracy
    long = task.method in AT_INITIALISATION or task.method == "scratch_long"
    from_scratch = long or task.method == "scratch"
    if from_scratch:
        dense_steps = protocol.dense_epochs * len(batches(protocol, 0))
        config = FitConfig(
            steps=left + long * dense_steps, lr=0.2, seed=task.seed, precision=protocol.precision
        )
    else:
        config = replace(finetuning(task.seed, protocol), steps=left)
    fit(small, batches(protocol, task.seed + 100), config=config, progress=False)
    if plan is not None:
        (folder / "plans").mkdir(exist_ok=True)
        plan.save(folder / "plans" / f"{task.network}_{task.macs}_{task.row}_{task.seed}.json")
    return _row(
        task,
        protocol,
        small,
        {
            "decision_seconds": round(decided, 2),
            "decision_steps": protocol.epochs * len(batches(protocol, 0)) - left,
            "seconds": round(time.perf_counter() - began, 1),
            "validation_after_pruning": after_pruning,
        },
    )


def _decided(task: Task, protocol: Protocol, folder: Path) -> tuple[Plan | None, nn.Module, int]:
    """Return the plan, the smaller network, and the training steps that are left."""
    per_epoch = len(batches(protocol, 0))
    total = protocol.epochs * per_epoch
    images = calibration(task.seed)
    budget = Budget(macs=task.macs)
    if task.method in SCRATCH:
        model = fresh(task.network, task.seed + 1000)
        outcome = shrink(model, example(), budget=budget, method="l2", allocator="uniform", round_to=4)
        return outcome.plan, outcome.small().train(), total
    if task.method in AT_INITIALISATION:
        model = fresh(task.network, task.seed + 1000)
    else:
        model = dense(task.network, task.seed, protocol, folder)
    if task.method.startswith(TORCH_PRUNING):
        name = task.method.removeprefix(TORCH_PRUNING)
        small = smaller(model, example(), name, task.macs, images)
        recalibrate_batchnorm(small, images, len(images))
        return None, small, total
    trains = task.method in methods.names() and methods.info(task.method).trains
    steps = round(protocol.deciding * total) if trains else 0
    outcome = shrink(
        model,
        example(),
        budget=budget,
        method=task.method,
        options=task.options,
        allocator=task.allocator,
        data=batches(protocol, task.seed) if trains else images,
        round_to=4,
        seed=task.seed,
        training=replace(DECIDING, steps=steps, precision=protocol.precision) if trains else None,
    )
    small = outcome.small()
    if task.method not in AT_INITIALISATION:
        recalibrate_batchnorm(small, images, len(images))
    return outcome.plan, small, total - steps


def _row(task: Task, protocol: Protocol, small: nn.Module, more: Mapping[str, Any]) -> dict[str, Any]:
    cost = capture(small, example()).costs.cost()
    return {
        "network": task.network,
        "macs": task.macs,
        "row": task.row,
        "seed": task.seed,
        "method": task.method,
        "options": dict(task.options),
        **{f"{split}_accuracy": value for split, value in scores(small).items()},
        "cost": cost.to_dict(),
        **more,
        "protocol": asdict(protocol),
    }


def plan_of(folder: Path, network: str, macs: float, row: str, seed: int) -> Plan:
    """Return the plan that a finished run has left."""
    return Plan.load(folder / "plans" / f"{network}_{macs}_{row}_{seed}.json")


def rebuilt(folder: Path, network: str, macs: float, row: str, seed: int) -> nn.Module:
    """Return a network of the widths of a finished run; latency does not ask for its weights."""
    return apply(fresh(network, seed), plan_of(folder, network, macs, row, seed)).eval()
