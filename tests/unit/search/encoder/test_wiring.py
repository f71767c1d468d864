"""Like nodes as one node with a count: messages and means are those of the written-out graph."""

from __future__ import annotations

import torch
from torch_geometric.data import Data

from billhook.search.encoder.wiring import means, messages, written_out
from tests.networks import build
from tests.unit.search.encoder.test_graphs import graph_of


def test_messages_are_the_normalised_adjacency_of_the_written_out_graph() -> None:
    network = graph_of(*build("residual"))
    data = written_out(network.network(torch.full((1, network.genes), 0.5)))
    sent = messages(data)
    dense = torch.zeros(data.num_nodes, data.num_nodes).index_put_(
        (sent.index[1], sent.index[0]), sent.weight, accumulate=True
    )
    adjacency = torch.eye(data.num_nodes)
    for a, b in data.edge_index.T.tolist():
        adjacency[a, b] += 1
        adjacency[b, a] += 1
    scale = adjacency.sum(1).rsqrt()
    assert torch.allclose(dense, scale[:, None] * adjacency * scale, atol=1e-6)


def test_a_count_is_worth_as_much_as_the_nodes_it_stands_for() -> None:
    network = graph_of(*build("residual"))
    counted = network.network(torch.full((2, network.genes), 0.5))
    assert written_out(counted).num_nodes > 2 * counted.num_nodes
    assert torch.allclose(_passed(counted), _passed(written_out(counted)), atol=1e-5)


def _passed(graph: Data) -> torch.Tensor:
    sent = messages(graph)
    values = graph.x[sent.index[0]] * sent.weight[:, None]
    return means(torch.zeros_like(graph.x).index_add_(0, sent.index[1], values).tanh(), graph)
