"""PPO finds how to share out what has to leave, and needs the encoder for that."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from billhook.allocate.budget import Budget
from billhook.search.encoder.graphs import NetworkGraph
from billhook.search.encoder.network import Embedding
from billhook.search.encoder.policies import GraphActor, GraphCritic
from billhook.search.encoder.policies_search import Proximal, search_with_ppo
from billhook.search.encoder.rays import at_budget
from billhook.search.space import Genes
from billhook.search.studies.trial import Trial
from tests.search_candidates import Judged, NoTrialsLeft, mlp_space

WORTH = np.array([0.9, 0.1])
SPACE = mlp_space((42, 42), 21)


def accuracy(row: Genes) -> float:
    return float(1 - (WORTH * (1 - SPACE.fractions(row)[0]) ** 2).sum())


class Constant(torch.nn.Module):
    """In the place of an encoder: says the same of everything."""

    size = 50

    def forward(self, graph: NetworkGraph, fractions: Tensor) -> Embedding:
        rows = len(fractions)
        return Embedding(torch.ones(rows, 50), torch.ones(rows, graph.genes, 50))


def searched(constant: bool, trials: int = 400) -> tuple[float, float]:
    """Return the accuracy of the best candidate, and of what the policy in the end says without noise."""
    judged = Judged(SPACE, accuracy, Budget(macs=0.5), trials)
    torch.manual_seed(0)
    actor, critic, graph = GraphActor(), GraphCritic(), NetworkGraph(SPACE.graph, SPACE.genes)
    if constant:
        actor.encoder = Constant()

    def evaluate(rows: Sequence[Genes]) -> list[Trial]:
        return judged.evaluate(np.stack(rows))

    with torch.random.fork_rng(devices=[]), pytest.raises(NoTrialsLeft):
        search_with_ppo(evaluate, judged.costs, actor, critic, graph, Proximal(lr=1e-3), parallel=4, seed=0)
    with torch.no_grad():
        said = actor(graph, torch.ones(1, 2))[0].double().numpy()
    return judged.best.accuracy, accuracy(at_budget(judged.costs, np.ones(2), (1 + said) / 2))


@pytest.mark.slow
def test_ppo_comes_within_one_percent_of_the_best_of_the_grid_and_a_constant_encoder_does_not_learn() -> None:
    costs = Judged(SPACE, accuracy, Budget(macs=0.5)).costs
    grid = np.array(list(product(range(21), repeat=2)))
    optimum = max(accuracy(row) for row in grid[costs.within(grid)])
    best, learnt = searched(constant=False)
    assert best >= 0.99 * optimum
    _, control = searched(constant=True)
    assert optimum - learnt < 0.5 * (optimum - control)
