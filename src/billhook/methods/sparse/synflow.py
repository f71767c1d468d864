"""SynFlow: weights leave through which little of the network's flow goes, without any data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from billhook.criteria.synflow import flow, ones
from billhook.methods.sparse._at_initialisation import SCHEDULES, prune_in_rounds
from billhook.methods.sparse._base import SparseMethod, SparseOutcome, SparseProblem
from billhook.options import Number, OneOf, option
from billhook.registry import Info

INFO = Info(
    "lets weights leave by their share of the flow of an all-ones input, in many rounds",
    "Tanaka et al., SynFlow, NeurIPS 2020, arXiv:2006.05467",
    notes="made for untrained networks without layer norms; needs no data; train afterwards",
)


@dataclass(frozen=True)
class Synflow(SparseMethod):
    """Keeps the largest |θ| ⊙ ∂R/∂|θ| of the weights that are left, R the sum of the outputs; see `flow`.

    In each round every layer has the same sum of scores, so that a threshold leaves something of each; that
    is why there are many rounds. Everything is float64.

    References:
        Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic flow",
        NeurIPS 2020, alg. 1. arXiv:2006.05467.
    Differs from the source:
        Of a pattern's units, the sums count. Buffers keep their signs, except that batch norms get fresh
        statistics. At least one unit of every tensor stays, which the source only makes likely. Scores can be
        negative where numbers in the flow are (layer norm, attention); see `energies_of`.
    """

    rounds: int = option(100, Number(1, integer=True), "how often weights are scored and leave")
    schedule: str = option("exponential", OneOf(*SCHEDULES), "how many weights the rounds leave")

    def run(self, problem: SparseProblem) -> SparseOutcome:
        """Return the structures, and a copy of the network that has them."""
        return prune_in_rounds(problem, _scores, rounds=self.rounds, schedule=self.schedule)


def _scores(problem: SparseProblem, number: int) -> dict[str, Tensor]:
    device = next((p.device for p in problem.model.parameters()), torch.device("cpu"))
    inputs = ones(problem.example_inputs, device)
    return flow(problem.model, list(problem.layers), inputs, problem.seed)[0]


ENTRY = Synflow
