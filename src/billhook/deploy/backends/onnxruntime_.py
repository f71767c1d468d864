"""ONNX Runtime on the CPU; the only file that imports it.

It must load without torch, because the timing process does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from billhook.errors import MissingExtraError, StorageError
from billhook.measure.artifact import Artifact
from billhook.measure.backend import Array, Backend, Rounding
from billhook.registry import Info

if TYPE_CHECKING:
    from torch import nn

INFO = Info(
    title="ONNX Runtime, CPU, float32",
    source="onnxruntime.ai",
    notes="needs the extra 'onnx'; widths are best multiples of 16 and never below 4",
)


class OnnxRuntimeSession:
    """A loaded ONNX file."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._inputs = [i.name for i in session.get_inputs()]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Return the outputs for `inputs`."""
        outputs: list[Array] = self._session.run(None, dict(zip(self._inputs, inputs, strict=True)))
        return outputs


class OnnxRuntime(Backend):
    """Exports with torch's dynamo exporter and runs on the CPU provider."""

    name = "onnxruntime"
    title = INFO.title
    library = "onnxruntime"
    extra = "onnx"
    rounding = Rounding(preferred=16, minimum=4)

    def export(
        self, model: nn.Module, example_inputs: Any, directory: Path, *, dynamic_batch: bool = True
    ) -> Artifact:
        """Write model.onnx and the manifest; see `Backend.export`."""
        from billhook.deploy.onnx import export_onnx
        from billhook.measure.environment import versions
        from billhook.measure.manifest import Manifest

        made = export_onnx(model, example_inputs, directory / "model.onnx", dynamic_batch=dynamic_batch)
        manifest = Manifest(
            backend=self.name,
            model=made.path.name,
            files=(),
            inputs=made.inputs,
            outputs=made.outputs,
            batch=made.batch,
            dynamic_batch=made.dynamic_batch,
            opset=made.opset,
            versions=versions(("billhook", "torch", "onnx", "onnxscript", "onnxruntime")),
            notes=made.notes,
        )
        return Artifact.create(directory, manifest)

    def prepare(self) -> None:
        """Import ONNX Runtime; see `Backend.prepare`."""
        _onnxruntime()

    def open(self, artifact: Artifact, threads: int = 1) -> OnnxRuntimeSession:
        """Load with all graph optimisations, operators one after the other; see `Backend.open`."""
        ort = _onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        # Idle threads that spin after a run would take the cores from whoever's turn is next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            session = ort.InferenceSession(
                str(artifact.model_path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as e:  # its exceptions have no common base but Exception
            raise StorageError(
                f"{artifact.model_path}: ONNX Runtime {ort.__version__} refuses it: {_first_line(e)}"
            ) from None
        return OnnxRuntimeSession(session)


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "onnx", "the backend 'onnxruntime'") from None
    return onnxruntime


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


ENTRY = OnnxRuntime()
