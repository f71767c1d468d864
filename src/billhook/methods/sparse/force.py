"""FORCE: weights leave in rounds and may come back when the sparser network would feel them."""

from __future__ import annotations

from dataclasses import dataclass

from billhook.methods.sparse._at_initialisation import SCHEDULES, prune_in_rounds
from billhook.methods.sparse._base import SparseMethod, SparseOutcome, SparseProblem
from billhook.methods.sparse._sensitivity import sensitivity
from billhook.options import Number, OneOf, option
from billhook.registry import Info

INFO = Info(
    "SNIP in many rounds, on the gradient of the pruned network; what has left may come back",
    "de Jorge et al., Progressive Skeletonization, ICLR 2021, arXiv:2006.09081",
    needs_data=True,
    notes="made for untrained networks and sparsities above 95%; train afterwards",
)


@dataclass(frozen=True)
class Force(SparseMethod):
    """Keeps the largest |θ · g(θ ⊙ m)|: dense weights, but the gradient of the network as pruned so far.

    References:
        de Jorge et al., "Progressive Skeletonization: Trimming more fat from a network at initialization",
        ICLR 2021, eq. (5) and alg. 1 (FORCE). arXiv:2006.09081.
    Differs from the source:
        Of a pattern's units, the sums count. Eval mode. At least one unit of every tensor stays.
    """

    batches: int = option(1, Number(1, integer=True), "batches of a round, at most")
    rounds: int = option(60, Number(1, integer=True), "how often weights are scored and leave")
    schedule: str = option("exponential", OneOf(*SCHEDULES), "how many weights the rounds leave")

    def run(self, problem: SparseProblem) -> SparseOutcome:
        """Return the structures, and a copy of the network that has them."""
        return prune_in_rounds(
            problem,
            lambda at, number: sensitivity(
                at, number, batches=self.batches, name="force", dense=problem.model
            ),
            rounds=self.rounds,
            schedule=self.schedule,
            returning=True,
        )


ENTRY = Force
