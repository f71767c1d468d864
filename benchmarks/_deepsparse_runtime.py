"""DeepSparse as a runtime, for its own environment: neither torch nor billhook's other backends are there.

python benchmarks/_deepsparse_runtime.py ARTIFACT INPUT.npy OUTPUT.npy      # runs it once
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from billhook.measure.artifact import Artifact
from billhook.measure.backend import Array, Backend

# Read when the library is imported; without them it reports its use over the network.
SILENT = {"NM_DISABLE_ANALYTICS": "1", "DO_NOT_TRACK": "1"}


class DeepSparseSession:
    """A compiled network."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Return the outputs for `inputs`."""
        outputs: list[Array] = self._engine.run(list(inputs))
        return outputs


class DeepSparse(Backend):
    """Opens ONNX files that `benchmarks._deepsparse` has made."""

    name = "deepsparse"
    title = "DeepSparse, CPU, float32"
    library = "deepsparse"

    def export(
        self, model: Any, example_inputs: Any, directory: Path, *, dynamic_batch: bool = True
    ) -> Artifact:
        """There is none: its environment has no torch."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Import the library; see `Backend.prepare`."""
        os.environ.update(SILENT)
        import deepsparse  # noqa: F401

    def open(self, artifact: Artifact, threads: int = 1) -> DeepSparseSession:
        """Compile the network; one that is partly left to another runtime is no measurement of this one."""
        self.prepare()
        from deepsparse import Engine

        engine = Engine(str(artifact.model_path), batch_size=1, num_cores=threads)
        if engine.fraction_of_supported_ops < 1:
            raise RuntimeError(f"DeepSparse takes {engine.fraction_of_supported_ops:.0%} of the network only")
        return DeepSparseSession(engine)


if __name__ == "__main__":
    session = DeepSparse().open(Artifact.load(sys.argv[1]))
    np.save(sys.argv[3], session.run([np.load(sys.argv[2])])[0])
