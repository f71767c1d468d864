"""What an agent sees of a gene before anything is decided: the fixed part of AMC's eleven features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from billhook.graph.weights import WeightLayer
from billhook.search.costs import SearchCosts
from billhook.search.space import Floats, Gene, Space

FEATURES = ("t", "n", "c", "h", "w", "stride", "k", "cost", "reduced", "rest", "last")
REDUCED, REST, LAST = (FEATURES.index(name) for name in ("reduced", "rest", "last"))


@dataclass(frozen=True, eq=False)
class Features:
    """The genes in the order in which they are decided, and what is seen of each.

    Attributes:
        order: Column of each gene in a row: [steps].
        table: Features from 0 to 1, as in `FEATURES`; "reduced" and "last" are filled in on the way:
            [steps, 11].
    """

    order: npt.NDArray[np.int64]
    table: Floats


def features_of(space: Space, costs: SearchCosts, metric: str) -> Features:
    """Return order and features of all genes: t, n, c, h, w, stride, k, cost and rest.

    A gene belongs to the first layer that reads its group, or whose weights it thins out; at one layer,
    channels are decided before densities. "cost" is what the network saves if this gene alone goes to its
    least value, "rest" what it saves if all later ones do.

    References:
        He et al., "AMC: AutoML for Model Compression and Acceleration on Mobile Devices", ECCV 2018, section
        3.1: (t, n, c, h, w, stride, k, FLOPs[t], reduced, rest, a_{t-1}), each scaled to [0, 1].
    Differs from the source:
        "cost" and "rest" are in terms of the budget's metric, and of what can be saved, since in a network
        with branches the costs of a layer are no gene's alone. h and w are of the output.
    """
    layers = space.whole.weights
    places = [_place(gene, space, layers) for gene in space.genes]
    order = sorted(range(len(places)), key=lambda g: (places[g], space.genes[g].kind == "density", g))
    chosen = [layers[places[g]] for g in order]
    saved, rest = _savings(space, costs, metric, order)
    static = np.array([[t, *_shape(layer), saved[t]] for t, layer in enumerate(chosen)], dtype=np.float64)
    table = np.zeros((len(order), len(FEATURES)))
    table[:, : static.shape[1]] = _scaled(static)
    table[:, REST] = rest
    return Features(np.array(order, dtype=np.int64), table)


def _place(gene: Gene, space: Space, layers: tuple[WeightLayer, ...]) -> int:
    """Return the position of the layer that a gene belongs to."""
    at = {layer.tensor: i for i, layer in enumerate(layers)}
    if gene.kind == "density":
        return at[gene.target]
    members = space.graph.groups[gene.target].members
    readers = [at[m.tensor] for m in members if m.role == "in" and m.tensor in at]
    return min(readers or [at[m.tensor] for m in members if m.tensor in at] or [0])


def _shape(layer: WeightLayer) -> list[float]:
    """Return n, c, h, w, stride and k."""
    outputs, inputs, _ = layer.view
    plane = layer.plane[-2:] or (1, 1)
    height, width = plane[0] if len(plane) == 2 else 1, plane[-1]
    stride, kernel = max(layer.stride, default=1), max(layer.kernel, default=1)
    return [outputs, inputs * layer.groups, height, width, stride, kernel]


def _savings(space: Space, costs: SearchCosts, metric: str, order: list[int]) -> tuple[Floats, Floats]:
    """Return what each gene, and what all after it, can save: fractions of the original, [steps] each."""
    steps = len(order)
    alone = np.tile(space.highest, (steps, 1))
    after = alone.copy()
    for t, gene in enumerate(order):
        alone[t, gene] = 0
        after[t, order[t + 1 :]] = 0
    found = 1 - costs.of(np.concatenate([alone, after]), (metric,))[metric] / costs.original[metric]
    return found[:steps], np.clip(found[steps:], 0, 1)


def _scaled(columns: Floats) -> Floats:
    """Return columns scaled to [0, 1]; 0 where nothing differs."""
    low, span = columns.min(0), np.ptp(columns, axis=0)
    scaled: Floats = (columns - low) / np.where(span > 0, span, 1)
    return scaled
