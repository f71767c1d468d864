"""What SNIP, iterative SNIP and FORCE share: how much the loss feels that a weight is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from billhook.criteria._gradients import mean_gradients
from billhook.methods._training import name_of
from billhook.methods.sparse._at_initialisation import SCHEDULES, calibration_for, prune_in_rounds
from billhook.methods.sparse._base import SparseMethod, SparseOutcome, SparseProblem
from billhook.options import Number, OneOf, option


def sensitivity(
    problem: SparseProblem, number: int, *, batches: int, name: str, dense: nn.Module | None = None
) -> dict[str, Tensor]:
    """Return |θ ⊙ g|, the absolute derivative of the loss with respect to a factor 1 on each weight.

    Args:
        problem: g is the gradient of its network, in eval mode.
        number: Of the round from 1; see `calibration_for`.
        batches: Use at most so many; of several, the mean gradient counts.
        name: Of the method, for messages.
        dense: θ are its weights; None: those of the problem's network.
    """
    calibration = calibration_for(problem, number, name)
    gradients = mean_gradients(
        problem.model, list(problem.layers), calibration, batches=batches, seed=problem.seed
    )
    weights = problem.weights(problem.model if dense is None else dense)
    return {tensor: (weights[tensor].detach() * g).abs() for tensor, g in gradients.items()}


@dataclass(frozen=True)
class Sensitive(SparseMethod):
    """Lets weights leave by their sensitivity, in rounds.

    Attributes:
        returning: Weights that have left are judged by their dense values and may come back.
    """

    returning: ClassVar[bool] = False

    batches: int = option(1, Number(1, integer=True), "batches of a round, at most")
    rounds: int = option(60, Number(1, integer=True), "how often weights are scored and leave")
    schedule: str = option("exponential", OneOf(*SCHEDULES), "how many weights the rounds leave")

    def run(self, problem: SparseProblem) -> SparseOutcome:
        """Return the structures, and a copy of the network that has them."""
        dense = problem.model if self.returning else None

        def score(at: SparseProblem, number: int) -> dict[str, Tensor]:
            return sensitivity(at, number, batches=self.batches, name=name_of(self), dense=dense)

        return prune_in_rounds(
            problem, score, rounds=self.rounds, schedule=self.schedule, returning=self.returning
        )
