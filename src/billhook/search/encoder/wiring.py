"""Graphs whose like nodes are one node with a count: small, and exactly as good as the written-out graph.

The n filters of a convolution are n nodes that nothing tells apart: the same features, the same neighbours.
A graph network gives all of them the same embedding, so one of them is enough if messages and means count it
n times. A ResNet-56 has about 6,000 nodes written out and 300 here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch_geometric.data import Data

KINDS = 4  # of nodes, in either wiring


@dataclass(frozen=True, eq=False)
class Wiring:
    """A graph with as many copies of its nodes as layers have channels at the moment.

    An edge joins each copy with its twin if both ends stand for the same layer, else all copies with the one
    node at the other end.

    Attributes:
        layer: The layer whose channels a node stands for, -1 for a single node; [nodes].
        kind: What a node is, below `KINDS`; [nodes].
        part: The graph a node belongs to, for a mean per graph; [nodes].
        edges: From and to which node; [2, edges].
        types: Which feature an edge has; [edges].
        known: What does not change of a node's features, each about 0 to 1; [nodes, any].
    """

    layer: Tensor
    kind: Tensor
    part: Tensor
    edges: Tensor
    types: Tensor
    known: Tensor
    _cached: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict, repr=False)

    @property
    def parts(self) -> int:
        """How many graphs there are."""
        return int(self.part.max()) + 1

    def data(self, channels: Tensor, changing: Tensor, width: int) -> Data:
        """Return one disjoint graph per row.

        Args:
            channels: Of every layer; [rows, layers].
            changing: What else a layer's nodes know; [rows, layers, any].
            width: Of a node's features: a constant, kind, degrees, `changing`, and as much of `known`
                as fits.
        Returns:
            Graphs with `x` [nodes, width], `edge_index` and `types` [edges], `count` (copies of a node)
            [nodes], `fan` (copies that send to one node: along edges, and against them) [2, edges] and
            `graph` (row · parts + part) [nodes].
        """
        rows, nodes = len(channels), len(self.layer)
        single = self.layer < 0
        at = self.layer.clamp_min(0)
        count = torch.where(single, 1.0, channels[:, at].clamp_min(1.0))  # [rows, nodes]
        source, target = self.edges
        twins = self.layer[source] == self.layer[target]
        forth = torch.where(twins, 1.0, count[:, source])
        back = torch.where(twins, 1.0, count[:, target])
        into = torch.zeros(rows, nodes).index_add_(1, target, forth)
        out = torch.zeros(rows, nodes).index_add_(1, source, back)
        degrees = torch.stack([into, out], dim=2).log1p() / 8
        moving = torch.where(single[:, None], 0.0, changing[:, at])
        kinds = torch.nn.functional.one_hot(self.kind, KINDS).float()
        fixed = torch.cat([torch.ones(nodes, 1), kinds], dim=1).expand(rows, -1, -1)
        own = width - fixed.shape[2] - degrees.shape[2] - moving.shape[2]
        known = self.known[:, :own].expand(rows, -1, -1)
        x = torch.cat([fixed, degrees, moving, known], dim=2)
        index, types, graph = self._copies(rows)
        return Data(
            x=x.reshape(rows * nodes, -1),
            edge_index=index,
            types=types,
            count=count.reshape(-1),
            fan=torch.stack([forth.reshape(-1), back.reshape(-1)]),
            graph=graph,
        )

    def _copies(self, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return edges, their types and graphs of so many disjoint copies."""
        if rows not in self._cached:
            if len(self._cached) > 8:
                self._cached.clear()
            nodes, row = len(self.layer), torch.arange(rows)
            index = (self.edges[:, None] + nodes * row[:, None]).reshape(2, -1)
            graph = (self.part + self.parts * row[:, None]).reshape(-1)
            self._cached[rows] = index, self.types.repeat(rows), graph
        return self._cached[rows]


@dataclass(frozen=True)
class Messages:
    """Who sends to whom, with weight 1 / √(degree · degree), times the senders that are alike.

    Along edges, against them, and from every node to itself; degrees count all three.

    Attributes:
        index: From and to which node; [2, messages].
        weight: [messages].
        types: Of the edge, -1 from a node to itself; [messages].
    """

    index: Tensor
    weight: Tensor
    types: Tensor


def messages(data: Data) -> Messages:
    """Return the messages of a graph: the entries of D^-½ (A + I) D^-½ for the undirected graph."""
    nodes = len(data.x)
    loops = torch.arange(nodes).expand(2, -1)
    index = torch.cat([data.edge_index, data.edge_index.flip(0), loops], dim=1)
    fan = torch.cat([data.fan[0], data.fan[1], torch.ones(nodes)])
    scale = torch.zeros(nodes).index_add_(0, index[1], fan).rsqrt()
    weight = fan * scale[index[0]] * scale[index[1]]
    types = torch.cat([data.types, data.types, torch.full((nodes,), -1)])
    return Messages(index, weight, types)


def means(values: Tensor, data: Data) -> Tensor:
    """Return the mean of every graph's nodes, copies counted; [graphs, any] of [nodes, any]."""
    graphs = int(data.graph.max()) + 1
    total = torch.zeros(graphs, values.shape[1]).index_add(0, data.graph, values * data.count[:, None])
    return total / torch.zeros(graphs).index_add_(0, data.graph, data.count)[:, None]


def written_out(data: Data) -> Data:
    """Return the graph with every copy of a node as a node of its own: what the papers draw.

    Embeddings of both are the same; this one is for looking at, and for proving that.
    """
    copies = data.count.round().long()
    first = copies.cumsum(0) - copies
    of = torch.repeat_interleave(torch.arange(len(copies)), copies)
    source, target = data.edge_index
    many = torch.maximum(copies[source], copies[target])
    edge = torch.repeat_interleave(torch.arange(len(source)), many)
    step = torch.arange(len(edge)) - (many.cumsum(0) - many)[edge]
    ends = [first[end][edge] + torch.where(copies[end][edge] > 1, step, 0) for end in (source, target)]
    return Data(
        x=data.x[of],
        edge_index=torch.stack(ends),
        types=data.types[edge],
        count=torch.ones(len(of)),
        fan=torch.ones(2, len(edge)),
        graph=data.graph[of],
    )
