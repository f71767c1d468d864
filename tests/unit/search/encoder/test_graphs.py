"""Graphs have the papers' nodes and edges, follow the channels that are left, and fit any network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from billhook.errors import InputError
from billhook.graph import capture
from billhook.search.encoder.graphs import NetworkGraph
from billhook.search.encoder.wiring import written_out
from billhook.search.space import Gene
from tests.networks import NETWORKS, build


def graph_of(model: nn.Module, inputs: torch.Tensor) -> NetworkGraph:
    captured = capture(model, inputs)
    genes = [Gene("channels", g.id, (1.0, float(g.size))) for g in captured.groups if g.prunable]
    return NetworkGraph(captured, genes)


def test_a_motif_of_16_inputs_has_34_nodes_and_48_edges() -> None:
    network = graph_of(nn.Sequential(nn.Conv2d(16, 4, 3), nn.Conv2d(4, 2, 3)), torch.zeros(1, 16, 8, 8))
    motifs = written_out(network.motifs(torch.ones(1, network.genes)))
    assert int((motifs.graph == 0).sum()) == 34
    assert int((motifs.graph[motifs.edge_index[0]] == 0).sum()) == 48


def test_two_convolutions_with_4_and_8_outputs_make_17_nodes_and_26_edges() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3), nn.ReLU())
    network = graph_of(model, torch.zeros(1, 3, 8, 8))
    data = written_out(network.network(torch.ones(1, network.genes)))
    assert (data.num_nodes, data.edge_index.shape[1]) == (17, 26)


def test_a_graph_shrinks_with_the_channels() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3), nn.ReLU())
    network = graph_of(model, torch.zeros(1, 3, 8, 8))  # the last outputs cannot leave
    half = torch.tensor([[0.5]])
    data = written_out(network.network(half))
    assert (data.num_nodes, data.edge_index.shape[1]) == (15, 22)
    motifs = written_out(network.motifs(half))
    assert [int((motifs.graph == i).sum()) for i in range(2)] == [2 * 3 + 2, 2 * 2 + 2]


def test_a_shortcut_is_one_edge_to_what_it_is_added_to() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Residual(4))
    network = graph_of(model, torch.zeros(1, 3, 8, 8))
    data = written_out(network.network(torch.ones(1, network.genes)))
    # Input, twice 4 filters and their join: 11 nodes; two times 8 edges, and the shortcut.
    assert (data.num_nodes, data.edge_index.shape[1]) == (11, 17)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x)


def test_features_are_the_same_every_time() -> None:
    first, second = (graph_of(*build("residual")) for _ in range(2))
    rows = torch.full((2, first.genes), 0.5)
    assert torch.equal(first.network(rows, 50).x, second.network(rows, 50).x)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_gene_has_its_place_in_every_network(name: str) -> None:
    network = graph_of(*build(name))
    assert torch.allclose(network.places.sum(1), torch.ones(network.genes))
    assert network.network(torch.full((1, network.genes), 0.5), 50).x.isfinite().all()


def test_a_gene_of_no_layer_is_refused() -> None:
    captured = capture(*build("plain"))
    with pytest.raises(InputError, match="no place for it"):
        NetworkGraph(captured, [Gene("density", "nothing.weight", (0.5, 1.0))])
