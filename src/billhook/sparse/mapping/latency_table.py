"""What a layer costs in time with a pattern: a table of relative times, interpolated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from math import log2
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from billhook.errors import InputError, StorageError, suggest
from billhook.graph.patterns import Pattern
from billhook.graph.weights import WeightLayer
from billhook.json_record import decode, encode, read_json
from billhook.sparse.allocation import require_sparsity

MAX_BYTES = 2**20
MAX_ROWS = 2**16
KINDS = ("conv_1x1", "conv_3x3", "conv", "linear", "depthwise")
WEIGHT_BYTES = 4  # fp32

_COARSE = ("filter", "channel")
_ROWS = "rows_"


class LatencyModel(Protocol):
    """What mapping asks of a device: a table, a formula, or an engine that times its layers."""

    def latency(self, layer: WeightLayer, pattern: Pattern | None, sparsity: float) -> float:
        """Return the seconds of a layer with a pattern (None: dense) and this fraction of zeros."""


@dataclass(frozen=True)
class KindTimes:
    """Times of one kind of layer.

    Attributes:
        macs_per_second: Of the dense layer.
        times: Class of patterns → time relative to that of the dense layer, at every sparsity of the table.
            "rows_8": eight neighbouring outputs share the inputs they read, "rows_1": single weights,
            "kernel": kernel patterns, "coarse": whole filters or channels.
    """

    macs_per_second: float
    times: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        if not self.macs_per_second > 0:
            raise StorageError(f"macs_per_second={self.macs_per_second:g} must be above 0")
        for name, times in self.times.items():
            if name not in ("kernel", "coarse") and _rows_in(name) is None:
                raise StorageError(
                    f"times.{name}: unknown class of patterns; expected rows_1, rows_8 and the like, "
                    "kernel or coarse"
                )
            if any(t < 0 for t in times) or any(b > a for a, b in pairwise(times)):
                raise StorageError(f"times.{name}: must be at least 0 and must not rise with sparsity")

    @property
    def rows(self) -> list[int]:
        """The numbers of rows for which there are times, ascending."""
        return sorted(rows for rows in map(_rows_in, self.times) if rows is not None)


@dataclass(frozen=True)
class LatencyTable:
    """Times of layers by kind, class of pattern and sparsity.

    A dense layer takes layer_seconds + max(macs / macs_per_second, bytes of the weight / bytes_per_second);
    with a pattern, the second term is multiplied by the interpolated relative time. Convolutions and linear
    layers only: what is between them is taken to cost the same whatever the patterns. The default table holds
    times of the engine on one machine (see its `basis`): it tells which of two patterns is faster, not how
    many milliseconds your device will take.

    Attributes:
        kinds: "conv_1x1", "conv_3x3", "conv", "linear" and "depthwise" → their times.
        sparsity: Fractions of zeros for which there are times, from 0 to 1.
        layer_seconds: What every layer costs however few weights it has.
        bytes_per_second: At which weights are read; bounds layers that use each weight only once.
        device: What was measured, for people.
        basis: Where the numbers come from, for people.
        format: Of the file.
    """

    kinds: Mapping[str, KindTimes]
    sparsity: tuple[float, ...]
    layer_seconds: float
    bytes_per_second: float
    device: str = ""
    basis: Mapping[str, str] = field(default_factory=dict)
    format: Literal["billhook.latency_table/1"] = "billhook.latency_table/1"

    def __post_init__(self) -> None:
        grid = self.sparsity
        if len(grid) < 2 or grid[0] != 0 or grid[-1] != 1 or any(b <= a for a, b in pairwise(grid)):
            raise StorageError("sparsity: must rise from 0 to 1")
        if not self.layer_seconds >= 0 or not self.bytes_per_second > 0:
            raise StorageError("layer_seconds must be at least 0 and bytes_per_second above 0")
        for name in self.kinds:
            if name not in KINDS:
                raise StorageError(f"kinds: unknown kind of layer {name!r}{suggest(name, KINDS)}")
        for name in KINDS:
            if name not in self.kinds:
                raise StorageError(f"kinds: entry {name!r} is missing")
            self._check_kind(name)

    def _check_kind(self, name: str) -> None:
        kind = self.kinds[name]
        if name == "depthwise" and kind.times:
            raise StorageError("kinds.depthwise.times: depthwise convolutions stay dense; must be empty")
        for pattern, times in kind.times.items():
            if len(times) != len(self.sparsity):
                raise StorageError(
                    f"kinds.{name}.times.{pattern}: {len(times)} times for {len(self.sparsity)} sparsities"
                )
        wanted = ("rows_1", "coarse", *(("kernel",) if name == "conv_3x3" else ()))
        missing = [p for p in wanted if p not in kind.times] if name != "depthwise" else []
        if missing:
            raise StorageError(f"kinds.{name}.times: entry {missing[0]!r} is missing")

    @classmethod
    def default(cls) -> LatencyTable:
        """Return the table that comes with the package."""
        return _default()

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Return the table of a device from a JSON file; `to_dict` of another table shows its form.

        Raises:
            StorageError: if it cannot be read or an entry is missing, unknown, not finite, negative, or rises
                with sparsity; names it.
        """
        path = Path(path)
        return decode(cls, read_json(path, MAX_BYTES), str(path))

    @classmethod
    def from_dict(cls, data: Any) -> LatencyTable:
        """Return the table that `to_dict` wrote; raises `StorageError`."""
        return decode(cls, data, "latency table")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        data: dict[str, Any] = encode(self, "latency table")
        return data

    def latency(self, layer: WeightLayer, pattern: Pattern | None, sparsity: float) -> float:
        """Return the modelled seconds of a layer.

        Args:
            layer: The layer.
            pattern: Of its weight; None: dense, whatever `sparsity` is.
            sparsity: Fraction of the weights that are zero, from 0 to below 1.
        Raises:
            InputError: for a sparsity outside [0, 1), or a pattern on a depthwise convolution.
        """
        require_sparsity(sparsity, "sparsity")
        name = kind_of(layer)
        kind = self.kinds[name]
        work = max(layer.macs / kind.macs_per_second, _bytes(layer) / self.bytes_per_second)
        if pattern is None:
            return self.layer_seconds + work
        if layer.depthwise:
            raise InputError(
                f"{layer.tensor}: depthwise convolutions stay dense in the latency table; map it to None"
            )
        return self.layer_seconds + work * self._relative(kind, class_of(pattern, layer), sparsity)

    def network(
        self,
        layers: Sequence[WeightLayer],
        choices: Mapping[str, Pattern | None],
        sparsities: Mapping[str, float] | float = 0.0,
    ) -> float:
        """Return the modelled seconds of all layers, see `network_latency`."""
        return network_latency(self, layers, choices, sparsities)

    def _relative(self, kind: KindTimes, pattern: str | int, sparsity: float) -> float:
        if isinstance(pattern, str):
            if pattern not in kind.times:
                raise InputError(
                    f"the latency table has no times of class {pattern!r} for this kind of layer"
                )
            return self._at(kind.times[pattern], sparsity)
        known = kind.rows
        times = [self._at(kind.times[f"{_ROWS}{rows}"], sparsity) for rows in known]
        return float(np.interp(log2(pattern), [log2(rows) for rows in known], times))

    def _at(self, times: Sequence[float], sparsity: float) -> float:
        return float(np.interp(sparsity, self.sparsity, times))


def network_latency(
    model: LatencyModel,
    layers: Sequence[WeightLayer],
    choices: Mapping[str, Pattern | None],
    sparsities: Mapping[str, float] | float = 0.0,
) -> float:
    """Return the modelled seconds of all layers.

    Args:
        model: What a layer costs.
        layers: Of the network.
        choices: Tensor → its pattern; tensors that are not named are dense.
        sparsities: Fraction of zeros of the tensors that have a pattern, for each or for all.
    Raises:
        InputError: if a tensor with a pattern has no sparsity, or `choices` names a tensor of no layer.
    """
    names = {layer.tensor for layer in layers}
    for tensor, pattern in choices.items():
        if tensor not in names:
            raise InputError(f"no layer has the weight {tensor!r}{suggest(tensor, names)}")
        if pattern is not None and isinstance(sparsities, Mapping) and tensor not in sparsities:
            raise InputError(
                f"{tensor} has the pattern {pattern} but no sparsity; give one, or map it to None"
            )
    total = 0.0
    for layer in layers:
        pattern = choices.get(layer.tensor)
        sparsity = 0.0
        if pattern is not None:
            sparsity = sparsities[layer.tensor] if isinstance(sparsities, Mapping) else sparsities
        total += model.latency(layer, pattern, sparsity)
    return total


def kind_of(layer: WeightLayer) -> str:
    """Return the kind of layer, as tables name it."""
    if layer.depthwise:
        return "depthwise"
    if layer.kind == "linear":
        return "linear"
    if layer.kind != "conv":
        raise InputError(f"{layer.tensor}: unknown kind of layer {layer.kind!r}; expected conv or linear")
    if set(layer.kernel) == {1}:
        return "conv_1x1"
    return "conv_3x3" if layer.kernel == (3, 3) and not layer.transposed else "conv"


def class_of(pattern: Pattern, layer: WeightLayer) -> str | int:
    """Return the class of a pattern: "coarse", "kernel", or how many outputs share the inputs they read.

    Kernels compute outputs in tiles whose size is a power of two: of blocks of 12 outputs, 4 fit a tile. A
    pattern that says nothing of rows counts as single weights, the slowest.
    """
    if pattern.name in _COARSE:
        return "coarse"
    if pattern.name == "kernel_pattern":
        return "kernel"
    outputs = outputs_of_group(layer)
    rows = outputs if pattern.name == "column" else getattr(pattern, "rows", 1)
    if getattr(pattern, "axis", "columns") == "rows":
        rows = 1  # what leaves are inputs of one output
    return outputs if rows >= outputs else rows & -rows


def outputs_of_group(layer: WeightLayer) -> int:
    """Return how many outputs can share the inputs they read."""
    return max(1, layer.view[0] // layer.groups)


@cache
def _default() -> LatencyTable:
    return LatencyTable.load(Path(__file__).with_name("table.json"))


def _bytes(layer: WeightLayer) -> int:
    outputs, inputs, positions = layer.view
    return outputs * inputs * positions * WEIGHT_BYTES


def _rows_in(name: str) -> int | None:
    """Return 8 for "rows_8", None for a name that is no such class."""
    digits = name.removeprefix(_ROWS)
    plain = name.startswith(_ROWS) and digits.isdecimal() and len(digits) <= len(str(MAX_ROWS))
    rows = int(digits) if plain and not digits.startswith("0") else 0
    return rows if 1 <= rows <= MAX_ROWS else None
