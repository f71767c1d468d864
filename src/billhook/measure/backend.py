"""`Backend`: a runtime that can lower a network and run the result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy.typing as npt

from billhook.errors import ExportError, MissingExtraError
from billhook.measure.environment import versions
from billhook.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from billhook.graph.inputs import ExampleInputs
    from billhook.graph.patterns import Pattern
    from billhook.graph.weights import WeightLayer
    from billhook.measure.artifact import Artifact

Array = npt.NDArray[Any]

PREFERRED_MULTIPLE = 16
"""Nearest multiple of 16 was best on ONNX Runtime and OpenVINO; up, or 32, gained nothing.

ONNX Runtime pads to blocks of 16 channels: nine 3x3 convolutions at 16x16 took 0.09 ms with 16 channels,
0.23 ms with 20 to 32, 0.46 ms with 36 to 48, 0.76 ms with 52 to 64 (AVX-512).

One AVX-512 core, batch 1: MobileNetV2 pruned by 30 % per layer took 1.77 times the original's time on ONNX
Runtime with widths as they fell and 0.55 times with widths rounded to 16; un-rounded widths cost ResNet-50
22-39 %.
"""

MINIMUM_MULTIPLE = 4
"""ONNX Runtime falls back to slow paths below 4; from 4 to 16 time grows with the width (0.04, 0.06, 0.08,
0.09 ms with 4, 8, 12, 16 channels, as above), so narrow layers have this finer choice.
"""


@dataclass(frozen=True)
class Rounding:
    """Channel counts a runtime likes.

    Attributes:
        preferred: Multiple at which its fast kernels have no remainder.
        minimum: Multiple for widths below `preferred`.
    """

    preferred: int = PREFERRED_MULTIPLE
    minimum: int = MINIMUM_MULTIPLE

    def fits(self, channels: int) -> bool:
        """Return True for a number of channels worth keeping: 4, 8, 12, 16, 32, 48, … by default.

        Between two blocks a layer costs as much as the wider one; below the first block time grows with
        the width, so there the finer multiple counts.
        """
        return channels % (self.minimum if channels < self.preferred else self.preferred) == 0


class Session(Protocol):
    """A loaded network, ready to run."""

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Return the outputs for `inputs`, both in the order of the manifest."""
        ...


class LayerTimes(Protocol):
    """What says how long layers take in a runtime; a latency model of `billhook.sparse.mapping`."""

    def latency(self, layer: WeightLayer, pattern: Pattern | None, sparsity: float) -> float:
        """Return the seconds of a layer with a pattern (None: dense) and this fraction of zeros."""
        ...

    def expect(self, layers: Sequence[WeightLayer]) -> None:
        """Hear of layers that will be asked for, in the network or not, to time them together."""
        ...

    def others(self, layers: Sequence[WeightLayer]) -> float:
        """Return the seconds of all of the network but these layers: no zeros among them change it."""
        ...


class Backend(ABC):
    """Base of all runtimes.

    A class is constructed without arguments and must be importable, because timing happens in another
    process; that process must be able to `open` without importing torch.

    Attributes:
        name: Key in the registry.
        title: One line for tables.
        library: Distribution whose version a measurement states.
        extra: What to install for it: billhook[extra].
        precision: What it computes in, for the conditions of a measurement; None where that is what the
            file says.
        rounding: Channel counts its kernels like.
        copy_form: What it usually runs fastest where a shortcut has lost some of its channels; see
            `billhook.fuse.lower`.
        leaves_zeros_out: Whether zeros among the weights save time and bytes.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    library: ClassVar[str]
    extra: ClassVar[str]
    precision: ClassVar[str | None] = None
    rounding: ClassVar[Rounding] = Rounding()
    copy_form: ClassVar[str] = "pointwise"
    leaves_zeros_out: ClassVar[bool] = False

    @abstractmethod
    def export(
        self, model: nn.Module, example_inputs: Any, directory: Path, *, dynamic_batch: bool = True
    ) -> Artifact:
        """Lower `model` into the empty folder `directory`; no check of the outputs.

        Args:
            model: The network; left as it is.
            example_inputs: A tensor, a tuple, or a dict of keyword arguments.
            directory: Where the files and the manifest go.
            dynamic_batch: Leave the batch size open where the network allows it; otherwise, and if it
                does not, the batch size is that of the example inputs.
        Raises:
            ExportError: if the network cannot be lowered; names the operator and the line.
            MissingExtraError: if the runtime or its exporter is not installed.
        """

    def export_int8(
        self,
        model: nn.Module,
        example_inputs: Any,
        directory: Path,
        *,
        calibration: Any,
        dynamic_batch: bool = True,
    ) -> Artifact:
        """Lower `model` to 8 bits; as `export`, for runtimes that can.

        Args:
            model: As for `export`, and so are the others.
            example_inputs: One batch.
            directory: Empty.
            dynamic_batch: Leave the batch size open where the network allows it.
            calibration: A `billhook.Calibration`: data, and the rule by which ranges of values are found.
        Raises:
            ExportError: if the runtime has no way to do this, or as `export`.
            InputError: if the calibration does not fit the network.
        """
        raise self._no_int8()

    def require_int8(self) -> None:
        """Raise now what `export_int8` would raise where the runtime has no int8.

        Raises:
            ExportError: says so.
        """
        if type(self).export_int8 is Backend.export_int8:
            raise self._no_int8()

    def _no_int8(self) -> ExportError:
        return ExportError(
            f"the backend {self.name!r} has no int8; export in float32, or for 'billhook' or 'onnxruntime'"
        )

    def require(self) -> None:
        """Raise now, without importing anything large, what `open` would raise if the runtime is missing.

        Raises:
            MissingExtraError: if its library is not installed.
        """
        if not versions((self.library,)):
            raise MissingExtraError(self.library, self.extra, f"the runtime {self.name!r}")

    def prepare(self) -> None:  # noqa: B027 (not every runtime needs it)
        """Import the runtime, so that its code does not count as memory of the first network.

        Raises:
            MissingExtraError: if the runtime is not installed.
        """

    def layer_times(
        self, model: nn.Module, example_inputs: ExampleInputs, threads: int = 1
    ) -> LayerTimes | None:
        """Return what times the layers of a network, with patterns of zeros, in this runtime.

        None where zeros make no difference to the runtime.

        Raises:
            UnsupportedError: if it cannot run the network; names the operators.
        """
        return None

    @abstractmethod
    def open(self, artifact: Artifact, threads: int = 1) -> Session:
        """Load `artifact` to run on `threads` threads.

        Raises:
            StorageError: if the runtime refuses the file.
            MissingExtraError: if the runtime is not installed.
        """


backends: Registry[Backend] = Registry("backend", "billhook.deploy.backends")
"""Runtimes by name; found when asked for, so that nothing here imports `deploy`."""


def channels_that_fit(backend: str, round_to: int | Literal["auto"]) -> Callable[[int], bool]:
    """Tell which numbers of channels are worth keeping: multiples of `round_to`, or what a backend likes."""
    if isinstance(round_to, int):
        return lambda channels: channels % round_to == 0
    return backends.get(backend).rounding.fits
