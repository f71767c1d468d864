"""What benchmarks that train share: data, trained networks that they begin with, scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from billhook.data import Dataset, load
from billhook.graph.storage import load_tensors, read_tensors, write_tensors
from billhook.models import build
from billhook.train import FitConfig, evaluate, fit

DATA, BATCH, CALIBRATION = "fashion-mnist", 128, 512


@dataclass(frozen=True)
class Protocol:
    """What is the same for all runs.

    Attributes:
        dense_epochs: Of the network that is pruned, from scratch.
        epochs: Of every run, those of the decision included.
        deciding: Part of them that a method which trains may decide in.
        batches: An epoch is cut to so many of them; None takes all.
        precision: Of the training.
    """

    dense_epochs: int = 8
    epochs: int = 2
    deciding: float = 0.4
    batches: int | None = None
    precision: str = "bf16-mixed"


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
def dataset(name: str = DATA) -> Dataset:
    """Return the data set."""
    return load(name, None)


def batches(protocol: Protocol, seed: int, data: str = DATA) -> Any:
    """Return the training split."""
    loader = dataset(data).training(BATCH, seed=seed)
    return loader if protocol.batches is None else Shortened(loader, protocol.batches)


def example(data: str = DATA) -> torch.Tensor:
    """Return one image."""
    return dataset(data).calibration(1, seed=0)[0]


def calibration(seed: int) -> list[Any]:
    """Return training images that a method may learn from."""
    inputs, targets = dataset().calibration(CALIBRATION, seed=seed)
    return list(zip(inputs.split(64), targets.split(64), strict=True))


def untrained(network: str, arguments: Mapping[str, Any], seed: int) -> nn.Module:
    """Return a network of the zoo with random weights."""
    torch.manual_seed(seed)
    return build(network, **arguments).eval()


def trained(
    network: str,
    arguments: Mapping[str, Any],
    seed: int,
    protocol: Protocol,
    folder: Path,
    *,
    data: str = DATA,
    lr: float = 0.2,
) -> nn.Module:
    """Return the trained network that all runs of a seed begin with; it is trained once."""
    name = network if data == DATA else f"{network}_{data}"
    path = folder / f"{name}_{seed}_{protocol.dense_epochs}_{protocol.batches}.safetensors"
    model = untrained(network, arguments, seed)
    if path.exists():
        load_tensors(model, read_tensors(path), str(path))
        return model.eval()
    config = FitConfig(epochs=protocol.dense_epochs, lr=lr, seed=seed, precision=protocol.precision)
    fit(model, batches(protocol, seed, data), config=config, progress=False)
    write_tensors(path, model)
    return model.eval()


def scores(model: nn.Module, data: str = DATA) -> dict[str, float]:
    """Return accuracy on the validation part, and on the test images: the latter once, for the table."""
    images = dataset(data)
    return {split: evaluate(model, images.evaluation(split)).accuracy for split in ("validation", "test")}


def finetuning(seed: int, protocol: Protocol, *, epochs: int | None = None, lr: float = 0.05) -> FitConfig:
    """Return how everything is trained that begins with the weights of the dense network."""
    epochs = protocol.epochs if epochs is None else epochs
    return FitConfig(epochs=epochs, lr=lr, schedule="cosine", seed=seed, precision=protocol.precision)
