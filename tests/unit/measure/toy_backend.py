"""A runtime without a runtime: its "network" multiplies matrices, or misbehaves as its file says."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from billhook.errors import MissingExtraError
from billhook.measure import Artifact, Backend, Manifest, TensorSpec, backends
from billhook.measure.backend import Array
from billhook.registry import Info


class ToySession:
    def __init__(self, behaviour: dict[str, Any]) -> None:
        self.behaviour = behaviour
        self.matrix = np.eye(behaviour.get("size", 8), dtype=np.float32)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        match self.behaviour.get("fault"):
            case "exit":
                print("the toy broke", file=sys.stderr, flush=True)
                os._exit(7)
            case "hang":
                time.sleep(60)
            case "raise":
                raise ValueError("the toy refuses")
            case "print":
                print("chatter on stdout", flush=True)
                os.write(1, b"chatter from native code\n")
        for _ in range(self.behaviour.get("work", 1)):
            self.matrix @ self.matrix
        return [2 * inputs[0]]


class ToyBackend(Backend):
    name = "toy"
    title = "toy"
    library = "numpy"

    def export(
        self, model: Any, example_inputs: Any, directory: Path, *, dynamic_batch: bool = True
    ) -> Artifact:
        raise NotImplementedError

    def open(self, artifact: Artifact, threads: int = 1) -> ToySession:
        behaviour = json.loads(artifact.model_path.read_text())
        if behaviour.get("fault") == "missing":
            raise MissingExtraError("toylib", "toy", "the toy backend")
        return ToySession(behaviour)


@contextmanager
def registered() -> Iterator[None]:
    """Make "toy" a known backend."""
    backends.add("toy", ToyBackend(), Info("toy"))
    try:
        yield
    finally:
        backends.remove("toy")


def toy(
    directory: Path, *, batch: int = 2, dynamic: bool = True, width: int = 3, **behaviour: Any
) -> Artifact:
    """Return an artifact with one input [batch, width], whose output is twice the input."""
    directory.mkdir()
    (directory / "model.json").write_text(json.dumps(behaviour))
    spec = TensorSpec("x", (None if dynamic else batch, width), "float32")
    manifest = Manifest(
        backend="toy",
        model="model.json",
        files=(),
        inputs=(spec,),
        outputs=(TensorSpec("y", spec.shape, "float32"),),
        batch=batch,
        dynamic_batch=dynamic,
        versions={"toy": "1.0"},
    )
    return Artifact.create(directory, manifest)
