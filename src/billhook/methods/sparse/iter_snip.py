"""Iterative SNIP: a few weights leave at a time, and the rest is scored without them."""

from __future__ import annotations

from dataclasses import dataclass

from billhook.methods.sparse._at_initialisation import SCHEDULES, prune_in_rounds
from billhook.methods.sparse._base import SparseMethod, SparseOutcome, SparseProblem
from billhook.methods.sparse._sensitivity import sensitivity
from billhook.options import Number, OneOf, option
from billhook.registry import Info

INFO = Info(
    "SNIP in many rounds; what has left stays away",
    "de Jorge et al., Progressive Skeletonization, ICLR 2021, arXiv:2006.09081",
    needs_data=True,
    notes="made for untrained networks and sparsities above 95%; train afterwards",
)


@dataclass(frozen=True)
class IterSnip(SparseMethod):
    """Keeps the largest |θ · ∂L/∂θ| of the weights that are left, in rounds.

    References:
        de Jorge et al., "Progressive Skeletonization: Trimming more fat from a network at initialization",
        ICLR 2021, section 4 (Iterative SNIP). arXiv:2006.09081.
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
            lambda at, number: sensitivity(at, number, batches=self.batches, name="iter_snip"),
            rounds=self.rounds,
            schedule=self.schedule,
        )


ENTRY = IterSnip
