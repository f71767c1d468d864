"""A network and the fractions of its genes as graphs: AGMC's plain one, GNN-RL's motifs and network graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2, prod
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.data import Data

from billhook.errors import InputError
from billhook.graph.graph import Graph
from billhook.graph.labels import Labels
from billhook.graph.weights import WeightLayer
from billhook.search.encoder.operators import KINDS, FeatureMaps, feature_maps
from billhook.search.encoder.wiring import Wiring

if TYPE_CHECKING:
    from billhook.search.space import Gene

Floats = npt.NDArray[np.float64]
_HARMONICS = 20  # more than the widest features take


class NetworkGraph:
    """What encoders see of a network: graphs whose nodes are as many as channels that are left.

    Built once per search, in well under a second; graphs of a row of genes then take about a tenth of a
    millisecond.

    Features of nodes are deterministic: a constant, degrees, kind, how much is left of the layer, its kernel,
    stride, plane and density, and where it lies in the network (0 to 1, and harmonics of that), so that they
    mean the same in a deeper network.

    Args:
        graph: The captured network.
        genes: What a row of fractions speaks of, in order.

    Attributes:
        layers: Layers whose output channels are nodes, in the order of the forward pass.
        genes: How many there are.
        places: Mean over the nodes that each gene's values stand for; [genes, nodes of `network`].

    Differs from the source:
        The releases draw features from a normal distribution, and again whenever the graph changes, so that
        the state is mostly noise. Linear layers of which outputs can leave are treated as convolutions.
    """

    def __init__(self, graph: Graph, genes: Sequence[Gene]) -> None:
        maps = feature_maps(graph)
        self.layers: tuple[WeightLayer, ...] = tuple(layer for layer, _, _ in maps.layers)
        self.genes = len(genes)
        sizes = _Sizes(graph, genes)
        self._outputs = sizes.of([outputs for _, outputs, _ in maps.layers])
        self._inputs = sizes.of([inputs for _, _, inputs in maps.layers])
        self._densities = _densities(self.layers, genes)
        self._motifs = _motifs(self.layers, maps)
        self._network = _network(self.layers, maps)
        self.places = _places(maps, graph, genes)

    @property
    def nodes(self) -> int:
        """Nodes of the network's graph, like ones counted once."""
        return len(self._network.layer)

    def channels(self, fractions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs and inputs of every layer; both [rows, layers].

        Args:
            fractions: What is left per gene, 0 to 1; [rows, genes].
        """
        return _affine(fractions, self._outputs), _affine(fractions, self._inputs)

    def motifs(self, fractions: Tensor, width: int = 20) -> Data:
        """Return level 1 of GNN-RL's graph: one motif per row and layer.

        A layer with c inputs is split → c channels → c operators → sum: 2c + 2 nodes and 3c edges.
        """
        _, inputs = self.channels(fractions)
        return self._motifs.data(inputs, self._changing(fractions, inputs, self._inputs), width)

    def network(self, fractions: Tensor, width: int = 20) -> Data:
        """Return level 2 of GNN-RL's graph, or with width=50 AGMC's graph (which has no use for `types`)."""
        outputs, _ = self.channels(fractions)
        return self._network.data(outputs, self._changing(fractions, outputs, self._outputs), width)

    def _changing(self, fractions: Tensor, channels: Tensor, affine: tuple[Tensor, Tensor]) -> Tensor:
        whole = affine[0] + affine[1].sum(0)
        return torch.stack(
            [channels / whole, _affine(fractions, self._densities), channels.log2() / 12], dim=2
        )


class _Sizes:
    """Lengths of dimensions as constant + fractions · slopes."""

    def __init__(self, graph: Graph, genes: Sequence[Gene]) -> None:
        self.partition = graph.partition
        self.gene_of = {g.target: i for i, g in enumerate(genes) if g.kind == "channels"}
        self.genes = len(genes)

    def of(self, dimensions: Sequence[Labels | int]) -> tuple[Tensor, Tensor]:
        """Return the constants [dimensions] and slopes [genes, dimensions]."""
        constants, slopes = torch.zeros(len(dimensions)), torch.zeros(self.genes, len(dimensions))
        for d, labels in enumerate(dimensions):
            fixed, terms = (labels, ()) if isinstance(labels, int) else self.partition.affine(labels)
            constants[d] += fixed
            for g, width in terms:
                group = self.partition.groups[g]
                if group.id in self.gene_of:
                    slopes[self.gene_of[group.id], d] += width * group.size
                else:
                    constants[d] += width * group.size
        return constants, slopes


def _affine(fractions: Tensor, affine: tuple[Tensor, Tensor]) -> Tensor:
    return affine[0] + fractions @ affine[1]


def _densities(layers: Sequence[WeightLayer], genes: Sequence[Gene]) -> tuple[Tensor, Tensor]:
    of = {g.target: i for i, g in enumerate(genes) if g.kind == "density"}
    constants, slopes = torch.ones(len(layers)), torch.zeros(len(genes), len(layers))
    for at, layer in enumerate(layers):
        if layer.tensor in of:
            constants[at], slopes[of[layer.tensor], at] = 0.0, 1.0
    return constants, slopes


def _motifs(layers: Sequence[WeightLayer], maps: FeatureMaps) -> Wiring:
    depth = _depths(maps)
    where = {layer: depth[node] for node, layer in enumerate(maps.layer_of) if layer >= 0}
    edges = [(4 * i + a, 4 * i + a + 1) for i in range(len(layers)) for a in range(3)]
    return Wiring(
        layer=torch.tensor([at for i in range(len(layers)) for at in (-1, i, i, -1)]),
        kind=torch.arange(4).repeat(len(layers)),
        part=torch.arange(len(layers)).repeat_interleave(4),
        edges=torch.tensor(edges, dtype=torch.long).T,
        types=torch.zeros(len(edges), dtype=torch.long),
        known=torch.tensor([_known(layers[i], where[i]) for i in range(len(layers)) for _ in range(4)]),
    )


def _network(layers: Sequence[WeightLayer], maps: FeatureMaps) -> Wiring:
    depth = _depths(maps)
    known = [_known(layers[i] if i >= 0 else None, depth[n]) for n, i in enumerate(maps.layer_of)]
    # Types of edges that are no layer's come behind the layers.
    types = [t if t >= 0 else len(layers) - 1 - t for _, _, t in maps.edges]
    return Wiring(
        layer=torch.tensor(maps.layer_of),
        kind=torch.tensor([KINDS.index(kind) for kind in maps.kinds]),
        part=torch.zeros(len(maps.kinds), dtype=torch.long),
        edges=torch.tensor([(s, t) for s, t, _ in maps.edges], dtype=torch.long).T,
        types=torch.tensor(types),
        known=torch.tensor(known),
    )


def _depths(maps: FeatureMaps) -> list[float]:
    deepest = max(maps.depths) or 1
    return [depth / deepest for depth in maps.depths]


def _known(layer: WeightLayer | None, depth: float) -> list[float]:
    """Return what does not change: of the layer, then its depth, which fills what is left of the features."""
    about = [0.0] * 4
    if layer is not None:
        kernel, plane = prod(layer.kernel), prod(layer.plane)
        stride = max(layer.stride, default=1)
        about = [log2(kernel) / 6, log2(stride), log2(max(1, plane)) / 16, float(layer.depthwise)]
    waves = [f(np.pi * k * depth) for k in range(1, _HARMONICS + 1) for f in (np.sin, np.cos)]
    return [*about, depth, *map(float, waves)]


def _places(maps: FeatureMaps, graph: Graph, genes: Sequence[Gene]) -> Tensor:
    places = torch.zeros(len(genes), len(maps.kinds))
    for row, gene in enumerate(genes):
        nodes = [n for t in _tensors(graph, gene) for n in maps.made_by.get(t, ())]
        if not nodes:
            raise InputError(
                f"gene {gene.name!r} belongs to no convolution or linear layer: the network's graph has "
                "no place for it. Leave it out of the scope, or search with 'amc'"
            )
        places[row, nodes] = 1 / len(nodes)
    return places


def _tensors(graph: Graph, gene: Gene) -> list[str]:
    """Return the weights whose outputs a gene speaks of."""
    if gene.kind == "density":
        return [gene.target]
    members = graph.groups[gene.target].members
    made: Mapping[str, None] = dict.fromkeys(m.tensor for m in members if m.role == "out")
    return list(made) or list(dict.fromkeys(m.tensor for m in members))
