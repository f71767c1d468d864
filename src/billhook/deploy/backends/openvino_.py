"""OpenVINO on the CPU; the only file that imports it.

It must load without torch, because the timing process does.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from billhook.errors import ExportError, MissingExtraError, StorageError
from billhook.measure.artifact import Artifact
from billhook.measure.backend import Array, Backend, Rounding
from billhook.registry import Info

if TYPE_CHECKING:
    from torch import nn

INFO = Info(
    title="OpenVINO, CPU, float32",
    source="openvino.ai",
    notes="needs the extra 'openvino'; widths are best multiples of 16, and of 4 below 16",
)

TELEMETRY = "openvino_telemetry"


class OpenVinoSession:
    """A compiled network with the request that runs it."""

    def __init__(self, compiled: Any, tensor: Any) -> None:
        self._request = compiled.create_infer_request()
        self._tensor = tensor
        self._inputs = len(compiled.inputs)
        self._fed: list[Any] = []

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Return the outputs for `inputs`.

        Inputs are read where they lie, outputs are copies: the next run overwrites the request's own. A tiny
        network takes 11 µs like this, and 25 µs where the library looks after inputs and outputs.
        """
        if len(inputs) != self._inputs:
            raise ValueError(f"{len(inputs)} inputs were given, the network takes {self._inputs}")
        # The tensors keep the arrays alive as long as the request points at them.
        self._fed = [self._tensor(_in_place(array), shared_memory=True) for array in inputs]
        for i, tensor in enumerate(self._fed):
            self._request.set_input_tensor(i, tensor)
        return list(self._request.infer({}).values())


class OpenVino(Backend):
    """Exports by way of ONNX to OpenVINO's own format and runs on the CPU plug-in, always in float32.

    The format is as fast as ONNX and takes as long to load (33 to 35 ms for a ResNet-20), and does not need
    the part of the library that reads ONNX on the device.

    Multiples of 16 are best here too, though not by as much as in ONNX Runtime: a chain of nine 3x3
    convolutions at 16x16 took 0.04, 0.05, 0.06, 0.07 ms with 4, 8, 12, 16 channels, 0.13 with 18, 0.14, 0.16,
    0.19, 0.20 with 20, 24, 28, 32, 0.33, 0.37, 0.41 with 36, 40, 48, and 0.66 with 56 (one AVX-512 core,
    batch 1, version 2026.4). Every channel counts, but the first one of a block costs as much as ten others:
    24 channels take longer than the mean of 16 and 32. Below 4 nothing is gained: 1 channel took 0.03 ms.
    """

    name = "openvino"
    title = INFO.title
    library = "openvino"
    extra = "openvino"
    precision = "float32 (INFERENCE_PRECISION_HINT=f32)"
    rounding = Rounding(preferred=16, minimum=4)
    copy_form = "gather"  # a look-up costs it nothing, a 1×1 convolution 5-10 % of a ResNet-20 or -56

    def export(
        self, model: nn.Module, example_inputs: Any, directory: Path, *, dynamic_batch: bool = True
    ) -> Artifact:
        """Write model.xml, model.bin and the manifest; see `Backend.export`.

        An open batch size costs a ResNet-20 about 5 % of its speed.
        """
        from billhook.deploy.onnx import export_onnx
        from billhook.measure.environment import versions
        from billhook.measure.manifest import Manifest

        ov = _openvino()
        with tempfile.TemporaryDirectory(prefix=".onnx-", dir=directory) as folder:
            made = export_onnx(
                model, example_inputs, Path(folder) / "model.onnx", dynamic_batch=dynamic_batch
            )
            try:
                # Not openvino.convert_model: for a file it does this, and reports to the maker that it did.
                network = ov.Core().read_model(made.path)
                ov.save_model(network, directory / "model.xml", compress_to_fp16=False)
            except Exception as e:  # it raises RuntimeError and pybind's translations of C++ exceptions
                raise ExportError(
                    f"OpenVINO {_version(ov)} cannot read the exported network: {_reason(e)}; "
                    "replace the operator, or export for another backend"
                ) from None
        manifest = Manifest(
            backend=self.name,
            model="model.xml",
            files=(),
            inputs=made.inputs,
            outputs=made.outputs,
            batch=made.batch,
            dynamic_batch=made.dynamic_batch,
            versions=versions(("billhook", "torch", "onnx", "onnxscript", "openvino")),
            notes=made.notes,
        )
        return Artifact.create(directory, manifest)

    def prepare(self) -> None:
        """Import OpenVINO and run a convolution; see `Backend.prepare`.

        The CPU plug-in is loaded with the first network: 30 MB of code that would count as the network's.
        """
        ov = _openvino()
        ops = ov.opset13
        x = ops.parameter([1, 16, 4, 4], np.float32)
        y = ops.convolution(x, np.ones((16, 16, 3, 3), np.float32), [1, 1], [1, 1], [1, 1], [1, 1])
        compiled = ov.Core().compile_model(ov.Model([y], [x]), "CPU", _settings(1))
        OpenVinoSession(compiled, ov.Tensor).run([np.ones((1, 16, 4, 4), np.float32)])

    def open(self, artifact: Artifact, threads: int = 1) -> OpenVinoSession:
        """Compile for one request at a time on `threads` threads, in float32; see `Backend.open`."""
        ov = _openvino()
        try:
            compiled = ov.Core().compile_model(str(artifact.model_path), "CPU", _settings(threads))
        except Exception as e:  # as above
            raise StorageError(
                f"{artifact.model_path}: OpenVINO {_version(ov)} refuses it: {_reason(e)}"
            ) from None
        return OpenVinoSession(compiled, ov.Tensor)


def _settings(threads: int) -> dict[str, str]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        # Left alone, processors that have bfloat16 or float16 use it.
        "INFERENCE_PRECISION_HINT": "f32",
        # Whoever starts the process chooses its cores, as the timing process does.
        "ENABLE_CPU_PINNING": "NO",
        # "LATENCY" alone uses one thread of each core, however many are asked for.
        "ENABLE_HYPER_THREADING": "YES",
    }


def _in_place(array: Array) -> Array:
    """Return `array`, or a copy if OpenVINO cannot read it where it is: with gaps, or not writeable."""
    return array if array.flags.carray else np.array(array, order="C")


def _openvino() -> Any:
    try:
        with _no_telemetry():
            import openvino
    except ImportError:
        raise MissingExtraError("openvino", "openvino", "the backend 'openvino'") from None
    return openvino


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """Hide the telemetry package during the first import of OpenVINO, which then uses an empty stand-in.

    Otherwise the mere import asks nobody, writes an identifier into the user's home folder, and reports to a
    web service from a child process, which would also run beside what is timed.
    """
    if "openvino" in sys.modules:
        yield
        return
    others = sys.modules.get(TELEMETRY)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[TELEMETRY]
        if others is not None:
            sys.modules[TELEMETRY] = others


def _version(ov: Any) -> str:
    return str(ov.__version__).split("-")[0]


def _reason(error: Exception) -> str:
    """Return what went wrong, without the places in OpenVINO's source that come before it."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return (told or lines or [type(error).__name__])[0]


ENTRY = OpenVino()
