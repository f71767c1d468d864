"""Costs of rows of widths and densities by formula: no weight is looked at, no structure is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from billhook.errors import InputError, suggest
from billhook.graph.cost import METRICS, Counts, Floats
from billhook.graph.graph import Graph
from billhook.graph.patterns import Pattern
from billhook.graph.structure import Structure
from billhook.graph.weight_shapes import WeightShapes
from billhook.graph.weights import WeightLayer
from billhook.sparse.mapping.candidates import keeps_blocks

_LONG = 255  # of `graph.packing`: a gap between flags that takes another byte
_SAMPLED = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)  # densities
_SIDE = 128  # outputs and inputs of what is sampled, at most


class RowCosts:
    """Costs of a network for rows of counts and densities, as `CostModel.cost` gives them for plans.

    With zeros, MACs are total − Σ macs·(1 − density), and so are parameters. Bytes are those of the numbers
    that are left and of the structure that says where they are. For patterns of disjoint blocks that divide
    the layer, MACs and parameters are exact, and so are bytes as long as an eighth of the blocks stays; with
    fewer, gaps between blocks are stored, of which the long ones are estimated as if blocks left at random.
    Other patterns (kernel patterns, N:M, unified blocks) are measured on random weights, once.

    Args:
        graph: The network.
        patterns: Tensor → pattern of its zeros.
    Raises:
        InputError: if a tensor is the weight of no layer.
    """

    def __init__(self, graph: Graph, patterns: Mapping[str, Pattern] | None = None) -> None:
        self._costs = graph.costs
        known = {layer.tensor: layer for layer in graph.weights}
        self._patterns = dict(patterns or {})
        for name in self._patterns:
            if name not in known:
                raise InputError(f"no layer has the weight {name!r}{suggest(name, known)}")
        layers = [known[name] for name in self._patterns]
        self._shapes = WeightShapes(graph, layers)
        self._left = LeftOf(layers, list(self._patterns.values()))
        self._itemsizes = np.array([graph.program.itemsizes[name] for name in self._patterns], np.float64)

    def of(
        self,
        counts: Counts,
        densities: Mapping[str, Floats] | None = None,
        metrics: Sequence[str] = METRICS,
    ) -> dict[str, Floats]:
        """Return {metric: [rows]}.

        Args:
            counts: Units kept, see `CostModel.evaluate`; [rows, groups].
            densities: Tensor → fraction of its weights that stay, in (0, 1]: [rows]. At 1 it has no pattern.
            metrics: As for `CostModel.evaluate`.
        Raises:
            InputError: for an unknown metric, or densities of a tensor without a pattern.
        """
        table = np.atleast_2d(np.asarray(counts, dtype=np.float64))
        found = self._costs.evaluate(table, metrics)
        given = densities or {}
        for name in given.keys() - self._patterns.keys():
            raise InputError(f"densities of {name!r}, which has no pattern")
        if not given or not {"macs", "params", "bytes"} & found.keys():
            return found
        whole = np.ones(len(table))
        asked = np.stack([np.broadcast_to(given.get(n, whole), whole.shape) for n in self._patterns], axis=1)
        macs, weights = self._costs.of_weights(table, list(self._patterns))
        shapes = self._shapes.of(table)
        left = self._left(shapes.outputs, shapes.inputs, asked.astype(np.float64))
        less = {
            "macs": macs * (1 - left.nonzeros),
            "params": weights * (1 - left.values),
            "bytes": weights * self._itemsizes * (1 - left.values) - left.structure * (weights > 0),
        }
        return {m: v - less[m].sum(1) if m in less else v for m, v in found.items()}


@dataclass(frozen=True)
class Left:
    """What patterns leave of tensors; every array is [rows, layers].

    Attributes:
        nonzeros: Fraction of the weights that may differ from zero.
        values: Numbers that are stored, as a fraction of the weights.
        structure: Bytes that say where they are.
    """

    nonzeros: Floats
    values: Floats
    structure: Floats


class LeftOf:
    """What patterns leave of layers, for any sizes and densities.

    Args:
        layers: At full width.
        patterns: One for each layer.
    """

    def __init__(self, layers: Sequence[WeightLayer], patterns: Sequence[Pattern]) -> None:
        self._positions = np.array([la.view[2] for la in layers], np.float64)
        self._blocks = np.ones((3, len(layers)))
        self._samples: dict[int, _Samples] = {}
        for at, (layer, pattern) in enumerate(zip(layers, patterns, strict=True)):
            if keeps_blocks(pattern, layer.view):
                self._blocks[:, at] = pattern.block(layer.view)
            else:
                self._samples[at] = _Samples(layer, pattern)

    def __call__(self, outputs: Floats, inputs: Floats, density: Floats) -> Left:
        """Return what is left; sizes and the densities that are asked for are [rows, layers] each."""
        outputs, inputs = np.maximum(outputs, 1), np.maximum(inputs, 1)  # of layers that are gone
        rows, columns, depth = self._blocks
        blocks = np.ceil(outputs / np.minimum(rows, outputs)) * np.ceil(inputs / np.minimum(columns, inputs))
        blocks *= np.ceil(self._positions / depth)
        kept = np.clip(np.ceil(density * blocks - 1e-9), 1, blocks)
        nonzeros, values, structure = kept / blocks, kept / blocks, flag_bytes(blocks, kept)
        for at, samples in self._samples.items():
            a, b, c = samples.at(density[:, at])
            nonzeros[:, at], values[:, at] = a, b
            structure[:, at] = c * outputs[:, at] * inputs[:, at] * self._positions[at]
        dense = density >= 1
        return Left(
            np.where(dense, 1.0, nonzeros), np.where(dense, 1.0, values), np.where(dense, 0.0, structure)
        )


class _Samples:
    """What any pattern leaves of random weights, measured when first needed; between densities, on a line."""

    def __init__(self, layer: WeightLayer, pattern: Pattern) -> None:
        self._layer, self._pattern = layer, pattern

    def at(self, density: Floats) -> tuple[Floats, Floats, Floats]:
        """Return, per weight, how many differ from zero, how many are numbers, and bytes of structure."""
        grid, *columns = self._table
        nonzeros, values, structure = (np.interp(density, grid, column) for column in columns)
        return nonzeros, values, structure

    @cached_property
    def _table(self) -> Floats:
        full = self._layer.view
        shape = (min(full[0], _SIDE), min(full[1], _SIDE), full[2])
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        low, high = self._pattern.sparsities(shape)
        grid = sorted({min(max(d, 1 - high), 1 - low) for d in _SAMPLED})
        return np.array([[density, *self._sampled(weight, density)] for density in grid]).T

    def _sampled(self, weight: torch.Tensor, density: float) -> tuple[float, float, float]:
        share = self._pattern.units_for(weight.square(), 1 - density)
        made = Structure(self._pattern, tuple(weight.shape), self._pattern.choose(weight, share))
        count = weight.numel()
        return made.nonzeros / count, made.values / count, made.stored_bytes(0) / count


def flag_bytes(flags: Floats, ones: Floats) -> Floats:
    """Return the bytes that `graph.packing` needs for flags of which some are 1, at random places.

    Bits, or one byte for the gap before every 1 where that is shorter; a gap takes another byte for every 255
    zeros, which happens with a probability of (1 - density)²⁵⁵ each time.
    """
    bits = np.ceil(flags / 8)
    far = (1 - ones / flags) ** _LONG
    gaps = ones + np.round(ones * far / np.maximum(1 - far, 1e-12))
    return 1 + np.minimum(bits, gaps)
