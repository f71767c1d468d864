"""The table of single layers: timed in the engine in several widths and densities, and added up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from billhook.errors import InputError, StorageError
from billhook.graph import capture
from billhook.graph.patterns import Pattern
from billhook.graph.weight_shapes import WeightShapes, resized
from billhook.graph.weights import WeightLayer
from billhook.measure.backend import LayerTimes, backends
from billhook.search.latencies.grid import Grid, Interpolation, spaced
from billhook.search.problem import SearchProblem
from billhook.search.space import Floats, Genes, Space

_POINTS = (8, 6, 5, 4, 3)  # along outputs and along inputs, at most
_DENSITIES = 12
_RUNS = 30  # of each point: rounds, in several cuts
_MACS = 1e12  # of all runs together, about: half a minute


@dataclass(frozen=True)
class LayerTable:
    """Times of all layers of a network, in the widths and densities of its candidates.

    Attributes:
        layers: Tensors of the layers.
        grid_of: Which grid each of them has; layers of one form share one.
        grids: Their times.
        between: Seconds of what is between layers of the original.
    """

    layers: tuple[str, ...]
    grid_of: tuple[int, ...]
    grids: tuple[Grid, ...]
    between: float

    def __post_init__(self) -> None:
        known = range(len(self.grids))
        if len(self.grid_of) != len(self.layers) or any(g not in known for g in self.grid_of):
            raise StorageError("grid_of: must name a grid for every layer")
        if not 0 <= self.between < float("inf"):
            raise StorageError("between: must be finite and at least 0")

    @classmethod
    def measure(cls, problem: SearchProblem) -> LayerTable:
        """Return the table of a network's candidates; about two seconds for a ResNet-20.

        Raises:
            InputError: if the backend cannot time layers.
            UnsupportedError: if it has no form for some operators; names them.
            EngineError: if the engine is not built.
        """
        model, inputs = problem.model, problem.example_inputs
        timed = backends.get(problem.backend).layer_times(model, inputs, problem.threads)
        if timed is None:
            able = [name for name in backends.names() if backends.get(name).leaves_zeros_out]
            raise InputError(
                f"latency='table': the backend {problem.backend!r} cannot time single layers; take "
                f"latency='fitted', or a backend that can ({', '.join(able)})"
            )
        # The problem's own graph may be that of another batch size.
        found = {layer.tensor: layer for layer in capture(model, inputs).weights}
        layers = [found[layer.tensor] for layer in problem.space.whole.weights]
        plans = _plans(problem.space, layers)
        timed.expect([small for plan in dict.fromkeys(plans) for small in plan.layers()])
        grids = {plan: plan.timed(timed) for plan in dict.fromkeys(plans)}
        at = {plan: i for i, plan in enumerate(grids)}
        return cls(
            tuple(layer.tensor for layer in layers),
            tuple(at[plan] for plan in plans),
            tuple(grids.values()),
            timed.others(layers),
        )


class TableTerms:
    """The sum of a table's times over all layers and what is between them, as a term of a calibration.

    What is between layers is taken to shrink with what they write.

    Args:
        space: The candidates.
        table: Of their network.
    Raises:
        StorageError: if the table is that of another network.
    """

    def __init__(self, space: Space, table: LayerTable) -> None:
        layers = space.whole.weights
        if table.layers != tuple(layer.tensor for layer in layers):
            raise StorageError("latency table: does not name the layers of this network")
        self._space, self._between = space, table.between
        self._shapes = WeightShapes(space.graph)
        self._interpolation = Interpolation([table.grids[g] for g in table.grid_of])
        self._pixels = np.array([layer.positions for layer in layers], dtype=np.float64)
        self._column = {layer.tensor: at for at, layer in enumerate(layers)}
        self.penalty: Floats = np.zeros(1)
        whole = self._shapes.of(space.counts(space.highest[None])).outputs
        self._written = float((whole @ self._pixels)[0])
        self._whole = float(self.seconds(space.highest[None])[0])

    def of(self, rows: Genes) -> Floats:
        """Return the sum relative to that of the original: [rows, 1]."""
        return self.seconds(rows)[:, None] / self._whole

    def seconds(self, rows: Genes) -> Floats:
        """Return the sum: [rows]."""
        shapes = self._shapes.of(self._space.counts(rows))
        densities = np.ones(shapes.outputs.shape)
        for tensor, density in self._space.densities(rows).items():
            densities[:, self._column[tensor]] = density
        layers = self._interpolation(shapes.outputs, shapes.inputs, densities)
        share = (shapes.outputs @ self._pixels) / self._written
        total: Floats = layers.sum(1) + self._between * share
        return total


@dataclass(frozen=True)
class _Plan:
    """In which sizes a layer is timed.

    Attributes:
        layer: At full width, without its names.
        outputs: Channels that it makes, rising.
        inputs: Channels of a group that it reads, rising.
        densities: Fractions of its weights, rising.
        pattern: Of its zeros; None: it stays dense.
    """

    layer: WeightLayer
    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    densities: tuple[float, ...]
    pattern: Pattern | None

    def layers(self) -> Iterator[WeightLayer]:
        """Yield the layer in all widths."""
        return (resized(self.layer, o, i) for o in self.outputs for i in self.inputs)

    @property
    def macs(self) -> float:
        """What all points multiply in one run, about."""
        return sum(layer.macs for layer in self.layers()) * (1.0 if self.pattern is None else 3.0)

    def timed(self, times: LayerTimes) -> Grid:
        """Return the times."""
        seconds = [[self._seconds(layer, d, times) for d in self.densities] for layer in self.layers()]
        shape = len(self.outputs), len(self.inputs), len(self.densities)
        return Grid.of(self.outputs, self.inputs, self.densities, np.array(seconds).reshape(shape))

    def _seconds(self, layer: WeightLayer, density: float, times: LayerTimes) -> float:
        dense = density >= 1 or self.pattern is None
        return times.latency(layer, None if dense else self.pattern, 0.0 if dense else 1 - density)


def _plans(space: Space, layers: Sequence[WeightLayer]) -> list[_Plan]:
    """Return in which sizes each layer is timed: as many as take little time."""
    plans: list[_Plan] = []
    for most in _POINTS:
        plans = list(_with_points(space, layers, most))
        if _RUNS * sum(plan.macs for plan in dict.fromkeys(plans)) <= _MACS:
            break
    return plans


def _with_points(space: Space, layers: Sequence[WeightLayer], most: int) -> Iterator[_Plan]:
    # Every value of every gene is in one of these rows, and the sums of values from the least to the most.
    rows = np.minimum(np.arange(int(space.sizes.max()))[:, None], space.highest)
    shapes = WeightShapes(space.graph).of(space.counts(rows))
    densities = {gene.target: gene.values for gene in space.genes if gene.kind == "density"}
    for at, layer in enumerate(layers):
        outputs, inputs = (
            np.unique(sizes[:, at]).round().astype(int).tolist() for sizes in (shapes.outputs, shapes.inputs)
        )
        free = layer.tensor in densities and not layer.depthwise
        yield _Plan(
            replace(layer, tensor="", layer="", others=()),
            tuple(spaced(outputs, most)),
            tuple(spaced(inputs, most)),
            tuple(spaced(densities[layer.tensor], _DENSITIES)) if free else (1.0,),
            space.patterns[layer.tensor] if free else None,
        )
