"""ONNX Runtime on the CPU; the only file that imports it.

It must load without torch, because the timing process does.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from billhook.errors import ExportError, InputError, MissingExtraError, StorageError
from billhook.measure.artifact import Artifact
from billhook.measure.backend import Array, Backend, Rounding
from billhook.registry import Info

if TYPE_CHECKING:
    from torch import nn

    from billhook.compile.int8.calibration import Calibration

INFO = Info(
    title="ONNX Runtime, CPU, float32 or int8",
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

    def export_int8(
        self,
        model: nn.Module,
        example_inputs: Any,
        directory: Path,
        *,
        calibration: Calibration,
        dynamic_batch: bool = True,
    ) -> Artifact:
        """Write model.onnx in 8 bits and the manifest; see `Backend.export_int8`.

        Pairs of QuantizeLinear and DequantizeLinear, activations without sign, weights with sign per output
        channel: of ONNX Runtime's forms the fast one on x86. Ranges are found by the same rules as for
        billhook's own engine, on the tensors of the ONNX graph.
        """
        if calibration.keep:
            raise InputError(
                f"keep={list(calibration.keep)} names values of billhook's engine; ONNX Runtime quantises all"
            )
        with tempfile.TemporaryDirectory(prefix=".float-", dir=directory) as folder:
            made = self.export(model, example_inputs, Path(folder), dynamic_batch=dynamic_batch)
            _quantise(model, made, directory / made.manifest.model, calibration)
        return Artifact.create(directory, replace(made.manifest, files=(), precision="int8"))

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


def _quantise(model: nn.Module, made: Artifact, path: Path, calibration: Calibration) -> None:
    """Write an artifact in float32 as a file in 8 bits."""
    ort = _onnxruntime()
    from onnxruntime import quantization

    ranges = _ranges(quantization, model, made, calibration)
    feeds = next(_feeds(model, made, calibration))

    class Once(quantization.CalibrationDataReader):  # type: ignore[misc]
        """One batch, for the tensors that are constant on all data; the ranges of others are known."""

        def __init__(self) -> None:
            self._left = [feeds]

        def get_next(self) -> dict[str, Array] | None:
            return self._left.pop() if self._left else None

    try:
        with _silent():
            quantization.quantize_static(
                made.model_path,
                path,
                Once(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                extra_options={
                    "TensorQuantOverrides": {
                        name: [{"rmin": np.float32(low), "rmax": np.float32(high)}]
                        for name, (low, high) in ranges.items()
                    }
                },
            )
    except Exception as e:  # it raises whatever its parts raise
        raise ExportError(
            f"ONNX Runtime {ort.__version__} cannot quantise it: {_first_line(e)}; export in float32"
        ) from e


def _ranges(
    quantization: Any, model: nn.Module, made: Artifact, calibration: Calibration
) -> dict[str, tuple[float, float]]:
    """Return the ranges of all tensors that ONNX Runtime would calibrate, by name."""
    import torch

    from billhook.compile.int8.histogram import Histogram

    seen: dict[str, Histogram] = {}
    with tempfile.TemporaryDirectory() as folder, _silent():
        # It makes every tensor an output; its own histograms would keep all numbers of all batches.
        augmented = quantization.create_calibrator(
            made.model_path,
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=quantization.CalibrationMethod.Percentile,
        )
        session = augmented.infer_session
        names = [o.name for o in session.get_outputs() if o.type == "tensor(float)"]
        for feeds in _feeds(model, made, calibration):
            for name, numbers in zip(names, session.run(names, feeds), strict=True):
                if not np.isfinite(numbers).all():
                    raise InputError(
                        f"the network computes numbers that are not finite on the calibration data: {name!r}"
                    )
                seen.setdefault(name, Histogram()).add(torch.from_numpy(numbers))
    return {name: calibration.range(histogram) for name, histogram in seen.items()}


def _feeds(model: nn.Module, made: Artifact, calibration: Calibration) -> Iterator[dict[str, Array]]:
    """Yield the calibration data by name, in batches of the artifact's size where that is fixed."""
    from billhook.deploy.example import Call

    specs = made.manifest.inputs
    calibration.first()  # or the error that there is none
    for batch in calibration.batches:
        call = Call.of(model, batch)
        arrays = [t.detach().cpu().numpy() for t in call.tensors]
        shapes, expected = [list(a.shape[1:]) for a in arrays], [list(s.shape[1:]) for s in specs]
        if shapes != expected:
            raise InputError(
                f"a calibration batch has samples of shapes {shapes}; the network takes {expected}; give "
                "inputs only, as in [inputs for inputs, targets in loader]"
            )
        fixed = None if made.manifest.dynamic_batch else made.manifest.batch
        size = call.batch if fixed and call.batch else 1
        for begin in range(0, size, fixed or size):
            # What is missing at the end is there twice.
            picks = np.arange(begin, begin + fixed) % size if fixed else slice(None)
            yield {spec.name: a[picks] for spec, a in zip(specs, arrays, strict=True)}


@contextmanager
def _silent() -> Iterator[None]:
    """Keep advice that it writes to the log from the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


ENTRY = OnnxRuntime()
