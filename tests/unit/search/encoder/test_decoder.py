"""The decoder walks over the genes; what it did can be walked again from the actions alone."""

from __future__ import annotations

import pytest
import torch

from billhook.search.encoder.decoder import DecoderPolicy
from billhook.search.encoder.network import EncoderName
from tests.networks import build
from tests.unit.search.encoder.test_graphs import graph_of


@pytest.mark.parametrize("encoder", ["plain", "hierarchical"])
def test_states_of_known_actions_are_those_of_the_walk(encoder: EncoderName) -> None:
    graph, policy = graph_of(*build("residual")), DecoderPolicy(encoder)
    actions, said = torch.rand(5, graph.genes), []

    def choose(ratios: torch.Tensor, gene: int) -> torch.Tensor:
        said.append(ratios)
        return actions[:, gene]

    embedding = policy.embed(graph)
    assert torch.equal(policy.act(embedding, 5, choose), actions)
    again = policy.ratio(policy.states(embedding, actions))
    assert torch.allclose(torch.stack(said, dim=1), again, atol=1e-6)


def test_later_ratios_depend_on_earlier_actions_and_not_the_other_way_round() -> None:
    graph, policy = graph_of(*build("residual")), DecoderPolicy()
    one, other = torch.full((1, graph.genes), 0.5), torch.full((1, graph.genes), 0.5)
    other[0, 1] = 0.9
    embedding = policy.embed(graph)
    moved = (policy.states(embedding, one) != policy.states(embedding, other)).any(2)[0]
    assert moved.tolist() == [t > 1 for t in range(graph.genes)]


def test_weights_do_not_depend_on_the_number_of_genes() -> None:
    policy = DecoderPolicy()
    for name in ("plain", "residual"):
        graph = graph_of(*build(name))
        ratios = policy.act(policy.embed(graph), 2, lambda said, _: said)
        assert ratios.shape == (2, graph.genes)
        assert ((ratios > 0) & (ratios < 1)).all()
