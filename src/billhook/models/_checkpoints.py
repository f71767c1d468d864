"""Trained weights that come with billhook: half-precision safetensors, each with a record of its making."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from billhook.errors import StorageError
from billhook.models._arguments import build
from billhook.models._weights import load_weights
from billhook.results import Measurement

FOLDER = Path(__file__).parent / "checkpoints"


@dataclass(frozen=True)
class Checkpoint:
    """A trained network: where its weights are and how they came about.

    Attributes:
        path: The safetensors file.
        model: Name in the registry.
        arguments: Arguments of the factory.
        dataset: Data set it was trained on.
        validation_accuracy: On the held-out part of the training set, with the stored (rounded) weights.
        sha256: Of the file.
        made_by: Script, seed, epochs, schedule, versions, duration: enough to make it again.
    """

    path: Path
    model: str
    arguments: Mapping[str, Any]
    dataset: str
    validation_accuracy: Measurement
    sha256: str
    made_by: Mapping[str, Any]

    def load(self) -> nn.Module:
        """Return the trained network in single precision.

        Raises:
            StorageError: if the file is not the one of the record.
        """
        if not self.path.is_file() or hashlib.sha256(self.path.read_bytes()).hexdigest() != self.sha256:
            raise StorageError(f"{self.path} is missing or damaged; install billhook again")
        model = build(self.model, **self.arguments)
        load_weights(model, self.path)
        return model


def checkpoint(model: str, dataset: str, *, folder: Path = FOLDER) -> Checkpoint | None:
    """Return the trained network of that name for that data set, None if there is none."""
    path = _path(folder, model, dataset)
    record = path.with_suffix(".json")
    if not record.is_file():
        return None
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        accuracy = Measurement.from_dict(content.pop("validation_accuracy"))
        return Checkpoint(path=path, validation_accuracy=accuracy, **content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{record} is damaged ({error}); install billhook again") from error


def save_checkpoint(
    network: nn.Module,
    model: str,
    arguments: Mapping[str, Any],
    dataset: str,
    *,
    validation_accuracy: Measurement,
    made_by: Mapping[str, Any],
    folder: Path = FOLDER,
) -> Checkpoint:
    """Write the weights in half precision and the record beside them; replaces an older pair."""
    tensors = {
        name: tensor.detach()
        .to("cpu", torch.float16 if tensor.is_floating_point() else tensor.dtype)
        .contiguous()
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    path = _path(folder, model, dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    path.chmod(0o644)  # safetensors lets nobody else read its files; these are installed for all users
    content = {
        "model": model,
        "arguments": dict(arguments),
        "dataset": dataset,
        "validation_accuracy": validation_accuracy.to_dict(),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "made_by": dict(made_by),
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    path.with_suffix(".json").write_text(text, encoding="utf-8")
    made = checkpoint(model, dataset, folder=folder)
    assert made is not None  # just written
    return made


def _path(folder: Path, model: str, dataset: str) -> Path:
    return folder / f"{model.replace('_', '-')}_{dataset.replace('_', '-')}.safetensors"
