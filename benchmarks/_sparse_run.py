"""One row of the comparison of patterns and sparse methods: decide, train, score."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

import billhook
from benchmarks._training import DATA, Protocol, batches, example, finetuning, scores, trained
from billhook import Scope
from billhook.methods.sparse import Sparsified, sparse_methods
from billhook.train import FitConfig, HoldPatterns, fit

NETWORKS: dict[str, dict[str, Any]] = {
    "resnet-20": {"stem_stride": 2, "in_channels": 1, "num_classes": 10},
    "small-vgg": {"in_channels": 1, "num_classes": 10},
    "lenet-5": {"in_channels": 1, "num_classes": 10},
}
# First and last layer stay dense in all rows: a class that loses its output is lost. A LeNet-5 has no others.
ENDS: dict[str, tuple[str, ...]] = {
    "resnet-20": ("conv", "classifier"),
    "small-vgg": ("features.0", "classifier"),
    "lenet-5": (),
}
RATE, FINE = 0.2, 0.05  # learning rates of the dense networks, and of what begins with their weights
NO_NORM = 0.02  # both, for a network without batch norm


@dataclass(frozen=True)
class Task:
    """One run.

    Attributes:
        network: Name in the zoo.
        part: Which comparison it belongs to.
        row: Name of the row.
        pattern: As `billhook.sparsify` takes it.
        sparsity: Fraction of zeros in the layers in scope.
        method: Sparse method; "dense" for the network that all begin with, "trained on" for the same network
            after as many further epochs as the sparse ones.
        options: Its options.
        sparsities: Fraction of zeros by weight, where they are shared out already.
        epochs: Of the run, those of the decision included; None: those of the protocol.
        data: Data set.
        seed: Of the dense network, of the decision and of the training.
    """

    network: str
    part: str = "grid"
    row: str = "dense"
    pattern: Any = ""
    sparsity: float = 0.0
    method: str = "dense"
    options: Mapping[str, Any] = field(default_factory=dict)
    sparsities: Mapping[str, float] | None = None
    epochs: int | None = None
    data: str = DATA
    seed: int = 0

    @property
    def budget(self) -> str:
        """The part and the sparsity in words."""
        return f"{self.part} {self.method} {self.sparsity:.1%}"

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells one run from another."""
        return key(asdict(self))


def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what tells one finished row from another."""
    names = ("network", "data", "part", "row", "method", "seed")
    return (*(row[n] for n in names), round(row["sparsity"], 4))


def dense(task: Task, protocol: Protocol, folder: Path) -> nn.Module:
    """Return the trained network that all rows begin with."""
    if task.data == "digits":  # a small data set: an epoch is over in a second
        protocol = replace(protocol, dense_epochs=5 * protocol.dense_epochs)
    return trained(
        task.network,
        arguments(task),
        task.seed,
        protocol,
        folder,
        data=task.data,
        lr=NO_NORM if task.network == "lenet-5" else RATE,
    )


def arguments(task: Task) -> dict[str, Any]:
    """Return how the network of a task is built."""
    own = NETWORKS[task.network]
    return {**own, "image": 8} if task.network == "lenet-5" and task.data == "digits" else own


def run(task: Task, protocol: Protocol, folder: Path) -> dict[str, Any]:
    """Return the finished row."""
    torch.set_num_threads(1)
    model = dense(task, protocol, folder)
    common = {**asdict(task), "protocol": asdict(protocol)}
    if task.method == "dense":
        return {**common, **_scores(model, task)}
    if task.method == "trained on":
        fit(model, batches(protocol, task.seed, task.data), config=_further(task, protocol), progress=False)
        return {**common, **_scores(model.eval(), task)}
    began = time.perf_counter()
    found = sparse(task, model, protocol)
    structures = found.plan.patterns
    return {
        **common,
        **_scores(found.network, task),
        "weight_sparsity": found.weight_sparsity,
        "weights": sum(prod(s.shape) for s in structures.values()),
        "nonzeros": sum(s.nonzeros for s in structures.values()),
        "stored_bytes": sum(s.stored_bytes(4) for s in structures.values()),
        "layer_sparsity": {n: round(s.sparsity, 4) for n, s in structures.items()},
        "log": list(found.log),
        "seconds": round(time.perf_counter() - began, 1),
    }


def sparse(task: Task, model: nn.Module, protocol: Protocol) -> Sparsified:
    """Return the sparse network, trained for the same epochs whatever the method."""
    config = _further(task, protocol)
    data = batches(protocol, task.seed, task.data)
    found = billhook.sparsify(
        model,
        example(task.data),
        sparsity=task.sparsity if task.sparsities is None else None,
        pattern=task.pattern,
        method=task.method,
        options=task.options,
        sparsities=task.sparsities,
        scope=Scope(exclude=ENDS[task.network]),
        data=data,
        training=config,
        seed=task.seed,
    )
    if not sparse_methods.info(task.method).trains:
        fit(found.network, data, config=config, callbacks=[HoldPatterns(found.plan.patterns)], progress=False)
        found.network.eval()
    return found


def _further(task: Task, protocol: Protocol) -> FitConfig:
    """Return how everything is trained that begins with a trained network."""
    rate = NO_NORM if task.network == "lenet-5" else FINE
    return finetuning(task.seed, protocol, epochs=task.epochs, lr=rate)


def _scores(model: nn.Module, task: Task) -> dict[str, float]:
    return {f"{split}_accuracy": value for split, value in scores(model, task.data).items()}
