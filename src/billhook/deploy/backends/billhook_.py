"""billhook's own engine, which turns zeros into time.

It must load without torch, because the timing process does.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from billhook import __version__
from billhook.errors import InputError, StorageError
from billhook.measure.artifact import Artifact
from billhook.measure.backend import Array, Backend, Rounding, Session, backends
from billhook.measure.manifest import Manifest, TensorSpec
from billhook.registry import Info

if TYPE_CHECKING:
    from torch import nn

    from billhook.compile.int8.calibration import Calibration
    from billhook.compile.session import EngineSession
    from billhook.errors import CompileError
    from billhook.graph.inputs import ExampleInputs
    from billhook.measure.backend import LayerTimes

INFO = Info(
    title="billhook's own engine, CPU, float32 or int8",
    source="design, section 7",
    notes="fast with sparse weights; networks that it cannot express are left to ONNX Runtime, with a note",
)

log = logging.getLogger("billhook")

FALLBACK = "onnxruntime"


class BillhookSession:
    """A loaded model file, fed as the manifest says."""

    def __init__(self, engine: EngineSession, manifest: Manifest) -> None:
        self._engine = engine
        self._manifest = manifest

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Return the outputs for `inputs`.

        Raises:
            InputError: if number, shape or type of the inputs are not those of the manifest.
        """
        specs = self._manifest.inputs
        if len(inputs) != len(specs):
            raise InputError(f"{len(inputs)} inputs were given, the network takes {len(specs)}")
        for spec, given in zip(specs, inputs, strict=True):
            fits = len(given.shape) == len(spec.shape) and all(
                wanted in (None, n) for wanted, n in zip(spec.shape, given.shape, strict=True)
            )
            if not fits or given.dtype != np.float32:
                raise InputError(
                    f"input {spec.name!r} has shape {list(given.shape)} and type {given.dtype}; "
                    f"expected {[n or 'batch' for n in spec.shape]} and float32"
                )
        return self._engine.run(inputs)


class BillhookEngine(Backend):
    """Compiles for the engine of `billhook.compile`; what it has no form for is left to another runtime.

    Attributes:
        fallback: Name of that runtime; None to refuse such networks.
        tuned_for: Instruction set of this processor for which shipped networks are cut by timing; None for
            the usual cuts, where that is another processor.
    """

    name = "billhook"
    title = INFO.title
    library = "billhook"
    extra = ""
    precision = "float32"  # where the manifest does not say int8
    rounding = Rounding(preferred=8, minimum=4)
    copy_form = "gather"  # a look-up is an address to it
    leaves_zeros_out = True

    def __init__(self, fallback: str | None = FALLBACK, tuned_for: str | None = "best") -> None:
        self.fallback, self.tuned_for = fallback, tuned_for

    def export(
        self, model: nn.Module, example_inputs: Any, directory: Path, *, dynamic_batch: bool = True
    ) -> Artifact:
        """Write model.bhk and the manifest; see `Backend.export`.

        A network with operators that the engine cannot express becomes an artifact for ONNX Runtime, whose
        notes name them; so does one that is too large for the engine's addresses.

        Raises:
            UnsupportedError: for operators that the engine lacks, without a fallback.
            TooLargeError: for more numbers than it can address, without a fallback.
        """
        return self._export(model, example_inputs, directory, dynamic_batch, None)

    def export_int8(
        self,
        model: nn.Module,
        example_inputs: Any,
        directory: Path,
        *,
        calibration: Calibration,
        dynamic_batch: bool = True,
    ) -> Artifact:
        """Write model.bhk in 8 bits; see `Backend.export_int8`.

        What is shipped is compared with the compiler's own arithmetic on the same grids.

        Raises:
            ExportError: if the engine computes something else.
            UnsupportedError: as for `export`.
        """
        return self._export(model, example_inputs, directory, dynamic_batch, calibration)

    def _export(
        self,
        model: nn.Module,
        example_inputs: Any,
        directory: Path,
        dynamic_batch: bool,
        calibration: Calibration | None,
    ) -> Artifact:
        from billhook.compile.compiler import assemble, assembled, prepared
        from billhook.compile.int8.agreement import check_agreement
        from billhook.compile.tile_cache import tuned
        from billhook.deploy.example import Call, evaluating, named_outputs
        from billhook.errors import TooLargeError, UnsupportedError
        from billhook.measure.environment import versions

        call = Call.of(model, example_inputs)
        with evaluating(model):
            outputs = named_outputs(call.run(model))
        try:
            # No check of the passes: what is shipped is compared with PyTorch as a whole.
            found = prepared(model, call.kwargs or call.args, check=False, calibration=calibration)
            compiled = assemble(found.network)
        except (UnsupportedError, TooLargeError) as e:
            if self.fallback is None:
                raise
            return self._left(e, self.fallback, model, example_inputs, directory, dynamic_batch, calibration)
        # Timing the cuts takes seconds, once; candidates of a search all have the usual ones.
        file, tiles = compiled.file, {}
        if dynamic_batch and self.tuned_for is not None:
            tiles = tuned(compiled, isa=self.tuned_for)
            file = assembled(compiled.network, tiles)
        if calibration is not None and dynamic_batch:
            check_agreement(found.network, file, tiles, calibration.first())
        (directory / "model.bhk").write_bytes(file)
        batch = None if dynamic_batch else call.batch

        def specs(named: dict[str, Any]) -> tuple[TensorSpec, ...]:
            return tuple(TensorSpec(n, (batch, *t.shape[1:]), "float32") for n, t in named.items())

        names = [port.name for port in compiled.network.inputs]
        manifest = Manifest(
            backend=self.name,
            model="model.bhk",
            files=(),
            inputs=specs(dict(zip(names, call.tensors, strict=True))),
            outputs=specs(outputs),
            batch=call.batch,
            dynamic_batch=dynamic_batch,
            versions={"billhook": __version__, **versions(("torch",))},
            notes=found.notes,
            precision="float32" if calibration is None else "int8",
        )
        return Artifact.create(directory, manifest)

    def require(self) -> None:
        """Load the library; see `Backend.require`.

        Raises:
            EngineError: if it has not been built.
        """
        from billhook.compile.library import library

        library()

    def prepare(self) -> None:
        """Load the library; see `Backend.prepare`."""
        self.require()

    def layer_times(self, model: nn.Module, example_inputs: ExampleInputs, threads: int = 1) -> LayerTimes:
        """Return what times layers in the engine; see `Backend.layer_times`.

        Raises:
            EngineError: if the engine has not been built.
        """
        from billhook.compile.layer_latency import TimedLayers

        return TimedLayers.of(model, example_inputs, threads=threads)

    def open(self, artifact: Artifact, threads: int = 1) -> Session:
        """Map the model file; see `Backend.open`. Other artifacts are opened by their own runtime."""
        if artifact.manifest.backend != self.name:
            return backends.get(artifact.manifest.backend).open(artifact, threads)
        from billhook.compile.session import EngineSession

        try:
            engine = EngineSession(artifact.model_path, threads=threads)
        except StorageError as e:
            raise StorageError(
                f"{artifact.model_path}: billhook {__version__} refuses it: {_reason(e)}"
            ) from None
        return BillhookSession(engine, artifact.manifest)

    def _left(
        self,
        error: CompileError,
        fallback: str,
        model: nn.Module,
        example_inputs: Any,
        directory: Path,
        dynamic_batch: bool,
        calibration: Calibration | None,
    ) -> Artifact:
        """Export for ONNX Runtime, and say why; lines of the user's code go to the log, not into the file."""
        log.warning("%s\nONNX Runtime runs it in its place", error)
        other = backends.get(fallback)
        if calibration is None:
            made = other.export(model, example_inputs, directory, dynamic_batch=dynamic_batch)
        else:
            made = other.export_int8(
                model, example_inputs, directory, calibration=calibration, dynamic_batch=dynamic_batch
            )
        operators = getattr(error, "operators", ())
        why = f"the engine has no form for {', '.join(operators)}" if operators else "it is too large"
        note = f"left to ONNX Runtime, because {why}"
        return made.with_manifest(notes=(*made.manifest.notes, note))


def _reason(error: StorageError) -> str:
    return str(error).partition(": ")[2]


ENTRY = BillhookEngine()
