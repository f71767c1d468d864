"""What a layer takes in the engine, by timing it with zeros of every kind: a latency model for mappings.

A curve is the time of a layer over its fraction of zeros, for one class of patterns: those whose outputs
share the inputs they read in the same way. All curves of one class and all layers are timed together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from math import prod

import numpy as np
from torch import nn

from billhook.compile.compiler import Compiled, compile_model
from billhook.compile.layer_cache import LayerCache
from billhook.compile.layer_network import LayerForm
from billhook.compile.layer_timing import LayerPoint, time_between, time_points
from billhook.compile.library import isas, library
from billhook.compile.matrices import LANES
from billhook.compile.tiles import IN_LANES
from billhook.graph.capture import capture_program
from billhook.graph.inputs import ExampleInputs, as_call, tensors
from billhook.graph.patterns import Pattern
from billhook.graph.weights import WeightLayer, weight_layers
from billhook.sparse.allocation import require_sparsity
from billhook.sparse.mapping.candidates import block_pattern, reach
from billhook.sparse.mapping.latency_table import LatencyModel, LatencyTable, class_of, outputs_of_group

GRID = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Fractions of zeros that are timed; between them time is nearly a straight line."""

_WHOLE = "whole"
Kind = int | str | Pattern | None
"""Outputs that share the inputs they read, "whole" for all of them, or a pattern of its own; None: dense."""
_ROWS = (1, 2, 4, 8, IN_LANES)
_ROWS_OF_VECTORS = (1, 2, 4, 8, LANES)

Curve = tuple[LayerForm, Pattern | None]


class TimedLayers:
    """A latency model (see `billhook.sparse.mapping.LatencyModel`) that times layers in the engine.

    A layer's time is that of its product in the fastest cut, with all that belongs to it: phases of what a
    strided window reads, margins, epilogue. What is between layers (pooling, sums that are not fused) is
    not in it: see `others`. It is never more than the dense layer's, for the engine runs that too, and never
    rises with sparsity. The first question about a class of patterns is answered after timing it for all
    `layers` (seconds to a minute); times are kept on disk. Layers that the engine has no operator for take
    the time of `table`.

    Args:
        layers: Of the network; others are timed when they are asked for.
        threads: Of the engine.
        isa: Instruction set.
        table: For layers that the engine has no operator for; None: the default table.
    Raises:
        EngineError: if the engine is not built.
    """

    def __init__(
        self,
        layers: Sequence[WeightLayer] = (),
        *,
        threads: int = 1,
        isa: str = "best",
        table: LatencyModel | None = None,
    ) -> None:
        library()
        self._layers, self._between = tuple(layers), 0.0
        self._expected: tuple[WeightLayer, ...] = ()
        self._threads, self._isa = threads, isas()[-1] if isa == "best" else isa
        self._table = LatencyTable.default() if table is None else table
        self._cache = LayerCache(self._isa, threads)
        self._curves: dict[Curve, tuple[list[float], list[float]]] = {}

    @classmethod
    def of(cls, model: nn.Module, example_inputs: ExampleInputs, *, threads: int = 1) -> TimedLayers:
        """Return the model of a network's latency; what is between its layers is timed at once.

        Raises:
            CaptureError: if the network cannot be captured.
            EngineError: if the engine is not built.
            UnsupportedError: if the engine has no form for some of its operators; names all of them.
        """
        library()
        compiled = compile_model(model, example_inputs, check=False)
        call = as_call(example_inputs)
        batch = tensors(call)[0].shape[0]
        made = cls(weight_layers(capture_program(model, call)), threads=threads)
        made._between = batch * made._time_between(compiled)
        return made

    def expect(self, layers: Sequence[WeightLayer]) -> None:
        """Time these layers together with those of the network as soon as one of them is asked for.

        They need not be in the network: a search asks for its layers in many widths.
        """
        self._expected += tuple(layers)

    def others(self, layers: Sequence[WeightLayer]) -> float:
        """Return the seconds of all but these layers: other ones, dense, and what is between them."""
        given = {layer.tensor for layer in layers}
        rest = [layer for layer in self._layers if layer.tensor not in given]
        return self._between + sum(self.latency(layer, None, 0.0) for layer in rest)

    def latency(self, layer: WeightLayer, pattern: Pattern | None, sparsity: float) -> float:
        """Return the seconds of a layer with a pattern (None: dense) and this fraction of zeros.

        Zeros of depthwise convolutions save nothing. Layers that are used several times, for several
        samples too, take as often their time.

        Raises:
            InputError: for a sparsity outside [0, 1).
        """
        require_sparsity(sparsity, "sparsity")
        form = LayerForm.of(layer)
        if form is None:
            return self._table.latency(layer, pattern, sparsity)
        kind = kind_of_zeros(pattern, layer)
        curve = form, _standing_for(kind, layer)
        if curve not in self._curves:
            self._find([curve, *self._likely(kind)])
        zeros, seconds = self._curves[curve]
        uses = layer.positions / prod(form.plane)
        return uses * float(np.interp(sparsity, zeros, seconds))

    def _time_between(self, compiled: Compiled) -> float:
        """Return the seconds of what is between the layers of a network, for one sample."""
        name = f"between {hashlib.sha256(compiled.file).hexdigest()}"
        if name not in self._cache.seconds:
            self._cache.add({name: time_between(compiled, threads=self._threads, isa=self._isa)})
        return self._cache.seconds[name]

    def _likely(self, kind: Kind) -> Iterator[Curve]:
        """Yield the same kind of zeros in all layers: who asks for one will ask for the others."""
        for layer in (*self._layers, *self._expected):
            form = LayerForm.of(layer)
            if form is None or (kind is not None and layer.depthwise):
                continue
            pattern = _standing_for(kind, layer)
            if pattern is None or layer.refusal(pattern) is None:
                yield form, _standing_for(kind_of_zeros(pattern, layer), layer)

    def _find(self, curves: Iterable[Curve]) -> None:
        """Time what is missing of some curves, all together."""
        wanted = {c: _points(*c) for c in curves if c not in self._curves}
        missing = {str(p): p for points in wanted.values() for p in points}
        missing = {name: p for name, p in missing.items() if name not in self._cache.seconds}
        if missing:
            self._cache.add(time_points(list(missing.values()), threads=self._threads, isa=self._isa))
        for (form, pattern), points in wanted.items():
            factor = form.outputs / form.sample.outputs
            seconds = np.minimum.accumulate([factor * self._cache.seconds[str(p)] for p in points])
            self._curves[form, pattern] = _with_knee([p.sparsity for p in points], seconds.tolist())


def kind_of_zeros(pattern: Pattern | None, layer: WeightLayer) -> Kind:
    """Return what the engine makes of a pattern: blocks of so many rows, or something of its own.

    Depthwise windows are run as if they were dense.
    """
    if pattern is None or layer.depthwise:
        return None
    kind = class_of(pattern, layer)
    if isinstance(kind, str):
        return pattern
    rows = _ROWS_OF_VECTORS if layer.kind == "linear" else _ROWS
    if kind == outputs_of_group(layer) and kind not in rows:
        return _WHOLE
    return max(r for r in rows if r <= kind)


def _standing_for(kind: Kind, layer: WeightLayer) -> Pattern | None:
    """Return the pattern that is timed for all of a kind."""
    if kind is None or isinstance(kind, Pattern):
        return kind
    rows = outputs_of_group(layer) if isinstance(kind, str) else kind
    return block_pattern(layer, rows, 1)


def _with_knee(zeros: list[float], seconds: list[float]) -> tuple[list[float], list[float]]:
    """Return a curve with the point from which on zeros pay: with fewer, a layer is run as a dense one.

    It lies where the line through the first two timed sparsities meets the time of the dense layer.
    """
    if len(zeros) < 3 or seconds[1] <= seconds[2]:
        return zeros, seconds
    slope = (seconds[1] - seconds[2]) / (zeros[2] - zeros[1])
    knee = zeros[1] - (seconds[0] - seconds[1]) / slope
    if not zeros[0] < knee < zeros[1]:
        return zeros, seconds
    return [zeros[0], knee, *zeros[1:]], [seconds[0], *seconds]


def _points(form: LayerForm, pattern: Pattern | None) -> list[LayerPoint]:
    """Return what is timed of a layer: dense, and along the grid as far as the pattern reaches."""
    form = form.sample
    dense = LayerPoint(form, None, 0.0)
    if pattern is None:
        return [dense]
    low, high = reach(pattern, form.view)
    wanted = {s for s in GRID if low <= s <= high} | {s for s in (low, min(high, GRID[-1])) if 0 < s < 1}
    return [dense, *(LayerPoint(form, pattern, s) for s in sorted(wanted))]
