"""Shapes of weights as formulas of the plan: what rows of counts make of every layer that has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from billhook.graph.cost import Counts, Floats
from billhook.graph.graph import Graph
from billhook.graph.weights import WeightLayer


@dataclass(frozen=True)
class Shapes:
    """Sizes of weights under rows of counts; every array is [rows, layers].

    Attributes:
        outputs: Channels or features that a layer makes.
        inputs: Those of one group that it reads.
        groups: Of a convolution; 1 of others.
    """

    outputs: Floats
    inputs: Floats
    groups: Floats


class WeightShapes:
    """Outputs and inputs of layers, affine in how many units each prunable group keeps.

    Args:
        graph: The network.
        layers: Of `graph.weights`; all of them if not given.
    """

    def __init__(self, graph: Graph, layers: Sequence[WeightLayer] | None = None) -> None:
        self.layers = tuple(graph.weights if layers is None else layers)
        column = {name: c for c, name in enumerate(graph.costs.group_ids)}
        self._constants = np.zeros((2, len(self.layers)))
        self._slopes = np.zeros((2, len(column), len(self.layers)))
        parts = graph.partition
        for at, layer in enumerate(self.layers):
            for axis in (0, 1):
                labels = parts.axes.get((layer.tensor, axis))
                if labels is None:  # carries no channels
                    self._constants[axis, at] = layer.shape[axis]
                    continue
                self._constants[axis, at], terms = parts.affine(labels)
                for group, width in terms:
                    self._slopes[axis, column[parts.groups[group].id], at] += width

    def of(self, counts: Counts) -> Shapes:
        """Return the sizes for counts [rows, prunable groups], columns as in `CostModel.group_ids`."""
        table = np.atleast_2d(np.asarray(counts, dtype=np.float64))
        first, second = (table @ s + c for s, c in zip(self._slopes, self._constants, strict=True))
        groups = np.tile(np.array([la.groups for la in self.layers], dtype=np.float64), (len(table), 1))
        outputs, inputs = first.copy(), second.copy()
        for at, layer in enumerate(self.layers):
            if _leaves_by_groups(layer):
                groups[:, at] *= first[:, at] / layer.shape[0]
            if layer.transposed:  # inputs × outputs of a group
                outputs[:, at] = second[:, at] * groups[:, at]
                inputs[:, at] = first[:, at] / np.maximum(groups[:, at], 1)
        return Shapes(outputs, inputs, groups)

    def depends(self, layer: int) -> tuple[frozenset[int], frozenset[int]]:
        """Return the columns of the counts on which outputs and inputs of a layer depend."""
        first, second = (frozenset(np.flatnonzero(s[:, layer]).tolist()) for s in self._slopes)
        if not self.layers[layer].transposed:
            return first, second
        return (first, second) if _leaves_by_groups(self.layers[layer]) else (second, first)


def resized(layer: WeightLayer, outputs: int, inputs: int) -> WeightLayer:
    """Return a layer with other sizes, as it is once channels have left.

    Args:
        layer: At full width.
        outputs: Channels that it makes.
        inputs: Channels of a group that it reads.
    """
    groups = layer.groups
    if _leaves_by_groups(layer):
        groups = outputs * layer.groups // layer.view[0]
    first, second = (inputs * groups, outputs // groups) if layer.transposed else (outputs, inputs)
    return replace(layer, shape=(first, second, *layer.shape[2:]), groups=groups)


def _leaves_by_groups(layer: WeightLayer) -> bool:
    """Tell if whole groups leave the convolution, not channels of every group (see `graph.rules`)."""
    return layer.groups > 1 and layer.groups > min(layer.shape[0] // layer.groups, layer.shape[1])
