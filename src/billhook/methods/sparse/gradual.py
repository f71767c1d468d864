"""Gradual magnitude pruning: more and more of the smallest weights leave while the network is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from billhook.graph.structure import Structure
from billhook.methods._schedule import progress_at, round_at
from billhook.methods.sparse._base import SparseProblem
from billhook.methods.sparse._training import SparseCallback, SparseTraining
from billhook.options import Number, OneOf, option
from billhook.registry import Info
from billhook.train import StepContext

INFO = Info(
    "sparsity grows while the network is trained, most of it early",
    "Zhu, Gupta, To prune, or not to prune, 2017, arXiv:1710.01878",
    needs_data=True,
    trains=True,
)


@dataclass(frozen=True)
class Gradual(SparseTraining):
    """In each round the smallest units of the moment leave; s_t = s · (1 - (1 - t/T)³).

    References:
        Zhu, Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression",
        2017, eq. (1).
    Differs from the source:
        Any pattern, and zeros shared out between tensors anew in each round.
    """

    rounds: int = option(20, Number(1, integer=True), "how often more weights leave")
    schedule: str = option("cubic", OneOf("linear", "cubic"), "how sparsity grows")

    def callback(self, problem: SparseProblem) -> SparseCallback:
        """Return what lets weights leave."""
        return GradualCallback(self, problem)


class GradualCallback(SparseCallback):
    """Holds the zeros there are, and adds to them in every round."""

    def __init__(self, method: Gradual, problem: SparseProblem) -> None:
        super().__init__(method, problem)
        self.method = method

    def act(self, context: StepContext) -> None:
        """Let the next weights leave when their time has come."""
        due = round_at(context.step, context.total_steps, self.method.rounds, self.until)
        if due is None:
            return
        progress = progress_at(due / self.method.rounds, self.method.schedule)
        problem = self.problem.partly(progress)
        if problem.patterns:
            weights = problem.weights(context.model)
            self.hold(context, problem.by_magnitude(weights, problem.shares_of(weights, progress)))

    def settle(self, context: StepContext) -> Mapping[str, Structure]:
        """Return the structures nearest to the present weights, at the full sparsity."""
        return self.problem.by_magnitude(self.problem.weights(context.model))


ENTRY = Gradual
