"""One row of the comparison of methods: decide, remove, train, score."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks._methods_torch_pruning import smaller
from billhook import Budget, apply, capture, shrink
from billhook.data import Dataset, load
from billhook.graph import Plan
from billhook.graph.storage import load_tensors, read_tensors, write_tensors
from billhook.methods import methods
from billhook.models import build
from billhook.train import FitConfig, evaluate, fit, recalibrate_batchnorm

DATA, BATCH, CALIBRATION = "fashion-mnist", 128, 512
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
class Protocol:
    """What is the same for all methods.

    Attributes:
        dense_epochs: Of the network that is pruned, from scratch.
        epochs: Of every method, those of the decision included.
        deciding: Part of them that a method which trains may decide in.
        batches: An epoch is cut to so many of them; None takes all.
        precision: Of the training.
    """

    dense_epochs: int = 8
    epochs: int = 2
    deciding: float = 0.4
    batches: int | None = None
    precision: str = "bf16-mixed"


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
    def row(self) -> str:
        """Name of the row in the table."""
        return self.label or self.method


class Shortened:
    """The first batches of every epoch of a loader."""

    def __init__(self, loader: Any, count: int) -> None:
        self.loader, self.count = loader, count

    def __len__(self) -> int:
        return min(self.count, len(self.loader))

    def epoch(self, epoch: int, start: int = 0) -> Any:
        """Return the batches of one epoch, from batch `start` on."""
        for number, batch in enumerate(self.loader.epoch(epoch, start), start):
            if number >= len(self):
                return
            yield batch


@cache
def dataset() -> Dataset:
    """Return the data set."""
    return load(DATA, None)


def batches(protocol: Protocol, seed: int) -> Any:
    """Return the training split."""
    loader = dataset().training(BATCH, seed=seed)
    return loader if protocol.batches is None else Shortened(loader, protocol.batches)


def example() -> torch.Tensor:
    """Return one image."""
    return dataset().calibration(1, seed=0)[0]


def fresh(network: str, seed: int) -> nn.Module:
    """Return the network with random weights."""
    torch.manual_seed(seed)
    return build(network, **NETWORKS[network]).eval()


def dense(network: str, seed: int, protocol: Protocol, folder: Path) -> nn.Module:
    """Return the trained network that all methods begin with; it is trained once."""
    path = folder / f"{network}_{seed}_{protocol.dense_epochs}_{protocol.batches}.safetensors"
    model = fresh(network, seed)
    if path.exists():
        load_tensors(model, read_tensors(path), str(path))
        return model.eval()
    config = FitConfig(epochs=protocol.dense_epochs, lr=0.2, seed=seed, precision=protocol.precision)
    fit(model, batches(protocol, seed), config=config, progress=False)
    write_tensors(path, model)
    return model.eval()


def scores(model: nn.Module) -> dict[str, float]:
    """Return accuracy on the validation part, and on the test images: the latter once, for the table."""
    data = dataset()
    return {split: evaluate(model, data.evaluation(split)).accuracy for split in ("validation", "test")}


def run(task: Task, protocol: Protocol, folder: Path) -> dict[str, Any]:
    """Return the finished row."""
    torch.set_num_threads(1)
    if task.method == "dense":
        return _row(task, protocol, dense(task.network, task.seed, protocol, folder), {})
    began = time.perf_counter()
    if task.method == "dense_longer":
        model = dense(task.network, task.seed, protocol, folder)
        fit(model, batches(protocol, task.seed + 100), config=finetuning(task, protocol), progress=False)
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
        config = replace(finetuning(task, protocol), steps=left)
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


def finetuning(task: Task, protocol: Protocol) -> FitConfig:
    """Return how everything is trained that begins with the weights of the dense network."""
    return FitConfig(
        epochs=protocol.epochs, lr=0.05, schedule="cosine", seed=task.seed, precision=protocol.precision
    )


def _decided(task: Task, protocol: Protocol, folder: Path) -> tuple[Plan | None, nn.Module, int]:
    """Return the plan, the smaller network, and the training steps that are left."""
    per_epoch = len(batches(protocol, 0))
    total = protocol.epochs * per_epoch
    data = dataset()
    inputs, targets = data.calibration(CALIBRATION, seed=task.seed)
    calibration = list(zip(inputs.split(64), targets.split(64), strict=True))
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
        small = smaller(model, example(), name, task.macs, calibration)
        recalibrate_batchnorm(small, calibration, len(calibration))
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
        data=batches(protocol, task.seed) if trains else calibration,
        round_to=4,
        seed=task.seed,
        training=replace(DECIDING, steps=steps, precision=protocol.precision) if trains else None,
    )
    small = outcome.small()
    if task.method not in AT_INITIALISATION:
        recalibrate_batchnorm(small, calibration, len(calibration))
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
