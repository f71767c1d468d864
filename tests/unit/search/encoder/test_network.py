"""Encoders do not care for the order of nodes, see every channel, and work on networks of any size."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from billhook.search.encoder.network import EncoderName, TypedConv, make_encoder
from billhook.search.encoder.wiring import Messages, means, messages, written_out
from tests.networks import build
from tests.unit.search.encoder.test_graphs import graph_of

BOTH: tuple[EncoderName, ...] = ("plain", "hierarchical")


def _dense(data: Data) -> torch.Tensor:
    adjacency = torch.eye(data.num_nodes)
    for a, b in data.edge_index.T.tolist():
        adjacency[a, b] += 1
        adjacency[b, a] += 1
    scale = adjacency.sum(1).rsqrt()
    return scale[:, None] * adjacency * scale


def _written() -> tuple[Data, Messages]:
    network = graph_of(*build("residual"))
    data = written_out(network.network(torch.full((1, network.genes), 0.5)))
    return data, messages(data)


def test_stage_two_with_plain_edges_is_a_product_with_the_normalised_adjacency() -> None:
    data, sent = _written()
    convolution = TypedConv(20, 20)
    with torch.no_grad():
        convolution.linear.weight.copy_(torch.eye(20))
        found = convolution(data.x, sent.index, sent.weight, torch.ones(len(sent.weight), 20))
    assert torch.allclose(found, _dense(data) @ data.x, atol=1e-6)


def test_an_edge_multiplies_what_it_carries_before_the_layer() -> None:
    convolution = TypedConv(2, 3)
    x, features = torch.randn(2, 2), torch.randn(1, 2)
    found = convolution(x, torch.tensor([[0], [1]]), torch.tensor([0.5]), features)
    assert torch.allclose(found[1], 0.5 * convolution.linear.weight @ (x[0] * features[0]), atol=1e-6)


def test_relabelled_nodes_have_the_same_mean() -> None:
    data, _ = _written()
    order = torch.randperm(data.num_nodes)
    back = order.argsort()
    other = data.clone()
    other.x, other.edge_index = data.x[order], back[data.edge_index]
    convolution = TypedConv(20, 50)

    def embedded(graph: Data) -> torch.Tensor:
        passed = messages(graph)
        types = torch.where(passed.types < 0, 1.0, 0.5 + passed.types / 100)
        features = types[:, None].expand(-1, 20)
        return means(convolution(graph.x, passed.index, passed.weight, features).tanh(), graph)

    assert torch.allclose(embedded(data), embedded(other), atol=1e-6)


@pytest.mark.parametrize("name", BOTH)
def test_one_channel_less_in_any_gene_is_seen(name: EncoderName) -> None:
    network = graph_of(*build("residual"))
    encoder = make_encoder(name)
    whole = encoder(network, torch.ones(1, network.genes)).whole
    for gene in range(network.genes):
        less = torch.ones(1, network.genes)
        less[0, gene] -= 1 / 16
        assert (encoder(network, less).whole - whole).abs().max() > 1e-6


@pytest.mark.parametrize("name", BOTH)
def test_a_row_has_its_own_embedding_in_a_batch(name: EncoderName) -> None:
    network, encoder = graph_of(*build("residual")), make_encoder(name)
    rows = torch.rand(4, network.genes).clamp_min(0.2)
    together = encoder(network, rows)
    alone = [encoder(network, row[None]) for row in rows]
    assert torch.allclose(together.whole, torch.cat([e.whole for e in alone]), atol=1e-6)
    assert torch.allclose(together.genes, torch.cat([e.genes for e in alone]), atol=1e-6)
    assert (together.whole[0] - together.whole[1]).abs().max() > 1e-6


@pytest.mark.parametrize("name", BOTH)
def test_the_same_weights_embed_networks_of_other_depths(name: EncoderName) -> None:
    encoder = make_encoder(name)
    for network in (graph_of(*build("plain")), graph_of(*build("residual"))):
        embedding = encoder(network, torch.ones(1, network.genes))
        assert embedding.whole.shape == (1, encoder.size)
        assert embedding.genes.shape == (1, network.genes, encoder.size)
