"""Encoders of a network's graph: AGMC's graph convolution, and GNN-RL's two stages."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, MessagePassing

from billhook.search.encoder.graphs import NetworkGraph
from billhook.search.encoder.operators import TYPES
from billhook.search.encoder.wiring import means, messages

EncoderName = Literal["plain", "hierarchical"]


@dataclass(frozen=True)
class Embedding:
    """What an encoder says.

    Attributes:
        whole: Of the network; [rows, size].
        genes: Of the layers of every gene; [rows, genes, size].
    """

    whole: Tensor
    genes: Tensor


class Encoder(nn.Module):
    """Embeds a network whose layers have lost channels; nothing in it depends on the network's size.

    Attributes:
        size: Of an embedding.
    """

    size: int

    @abstractmethod
    def forward(self, graph: NetworkGraph, fractions: Tensor) -> Embedding:
        """Return embeddings for rows of fractions that are left; [rows, genes]."""


class PlainEncoder(Encoder):
    """AGMC's: one graph convolution (50 → 30), ReLU, mean over nodes, a linear layer, tanh.

    References:
        Yu, Mazaheri, Jannesari, "Auto Graph Encoder-Decoder for Neural Network Pruning", ICCV 2021.
        arXiv:2011.12641.
    Differs from the source:
        Gives the embedding of each layer's nodes too, by the same linear layer.
    """

    def __init__(self, inputs: int = 50, size: int = 30) -> None:
        super().__init__()
        self.inputs, self.size = inputs, size
        self.convolution = GCNConv(inputs, size, normalize=False)
        self.head = nn.Linear(size, size)

    def forward(self, graph: NetworkGraph, fractions: Tensor) -> Embedding:
        """Return embeddings for rows of fractions that are left; [rows, genes]."""
        data = graph.network(fractions, self.inputs)
        passed = messages(data)
        nodes = self.convolution(data.x, passed.index, passed.weight).relu()
        return _embedding(graph, data, nodes, self.head)


class HierarchicalEncoder(Encoder):
    """GNN-RL's m-GNN: motifs of the layers become features of the edges of the network's graph.

    Stage 1: a graph convolution (20 → 50), tanh, mean per motif, linear (50 → 20), tanh. Stage 2: `TypedConv`
    (20 → 50), tanh, mean over nodes, linear (50 → 50), tanh.

    References:
        Yu, Mazaheri, Jannesari, "Topology-Aware Network Pruning using Multi-stage Graph Embedding and
        Reinforcement Learning", ICML 2022. arXiv:2102.03214.
    Differs from the source:
        No dropout: probabilities of actions that PPO compares would be those of two different networks. Types
        of edges without a motif have a trained vector each. Messages go both ways, as the norm 1 / √(dᵢ dⱼ)
        supposes; in the release they only go forward. Gives the embedding of each layer's nodes too.
    """

    def __init__(self, inputs: int = 20, size: int = 50) -> None:
        super().__init__()
        self.inputs, self.size = inputs, size
        self.motif = GCNConv(inputs, size, normalize=False)
        self.motif_head = nn.Linear(size, inputs)
        self.types = nn.Parameter(torch.ones(len(TYPES), inputs))
        self.typed = TypedConv(inputs, size)
        self.head = nn.Linear(size, size)

    def forward(self, graph: NetworkGraph, fractions: Tensor) -> Embedding:
        """Return embeddings for rows of fractions that are left; [rows, genes]."""
        motifs = graph.motifs(fractions, self.inputs)
        passed = messages(motifs)
        inner = self.motif(motifs.x, passed.index, passed.weight).tanh()
        of_layers = self.motif_head(means(inner, motifs)).tanh()  # [rows · layers, inputs]
        data = graph.network(fractions, self.inputs)
        passed = messages(data)
        features = self._edge_features(graph, of_layers, passed.types, passed.index[0])
        nodes = self.typed(data.x, passed.index, passed.weight, features).tanh()
        return _embedding(graph, data, nodes, self.head)

    def _edge_features(self, graph: NetworkGraph, of_layers: Tensor, types: Tensor, sender: Tensor) -> Tensor:
        """Return a feature per message: of the layer's motif, of the type, or ones; [messages, inputs]."""
        layers = len(graph.layers)
        row = sender // graph.nodes
        table = torch.cat([of_layers, self.types, torch.ones(1, self.inputs)])
        rest = len(of_layers) + torch.where(types < 0, len(self.types), types - layers)
        at = torch.where((types >= 0) & (types < layers), row * layers + types, rest)
        return table.index_select(0, at)


class TypedConv(MessagePassing):  # type: ignore[misc]
    """Graph convolution whose edges have features: the sum over j of norm_ij Θ (x_j ⊙ e_ij), plus a bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(aggr="add")
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.linear.weight)

    def forward(self, x: Tensor, index: Tensor, weight: Tensor, features: Tensor) -> Tensor:
        """Return new nodes [nodes, outputs] of `x` [nodes, inputs]; messages with weights and features."""
        # Θ is linear: behind the sum it multiplies with nodes, not with messages, which are three times more.
        summed: Tensor = self.propagate(index, x=x, weight=weight, features=features)
        out: Tensor = self.linear(summed) + self.bias
        return out

    def message(self, x_j: Tensor, weight: Tensor, features: Tensor) -> Tensor:
        """Return what a node sends."""
        return weight[:, None] * x_j * features


def make_encoder(name: EncoderName) -> Encoder:
    """Return a new encoder."""
    return PlainEncoder() if name == "plain" else HierarchicalEncoder()


def _embedding(graph: NetworkGraph, data: Data, nodes: Tensor, head: nn.Linear) -> Embedding:
    whole = head(means(nodes, data)).tanh()
    places = graph.places @ nodes.view(-1, graph.nodes, nodes.shape[1])
    return Embedding(whole, head(places).tanh())
