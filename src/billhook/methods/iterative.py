"""Iterative pruning: score, take a little away, train, score again."""

from __future__ import annotations

from dataclasses import dataclass

from billhook.graph import Plan
from billhook.methods._approaching import Approaching
from billhook.methods._base import Problem
from billhook.methods._parts import Allocating, Scoring
from billhook.methods._schedule import progress_at, round_at
from billhook.methods._training import MethodCallback, TrainingMethod
from billhook.options import Number, OneOf, option
from billhook.registry import Info
from billhook.train import StepContext

INFO = Info(
    "scores and silences a few units at a time, training in between",
    "Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, arXiv:1906.10771",
    needs_data=True,
    trains=True,
    notes="any criterion with any allocator",
)


@dataclass(frozen=True)
class Iterative(Allocating, Scoring, TrainingMethod):
    """Rounds of scoring spread over the first part of training; units that lost stay silent.

    References:
        Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019 (section 4).
    Differs from the source:
        The budget says how much leaves in each round, not a fixed number of units.
    """

    rounds: int = option(10, Number(1, integer=True), "how often units are scored and silenced")
    until: float = option(0.7, Number(0.01, 1), "part of training after which nothing more leaves")
    schedule: str = option("cubic", OneOf("linear", "cubic"), "how the cost comes down")

    def callback(self, problem: Problem) -> MethodCallback:
        """Return what scores and silences."""
        return IterativeCallback(self, problem)


class IterativeCallback(Approaching):
    """Lets units leave in the rounds, each time the least by the weights of the moment."""

    def __init__(self, method: Iterative, problem: Problem) -> None:
        super().__init__(problem, method.scoring(), method.allocating())
        self.method = method

    def before_step(self, context: StepContext) -> None:
        """Silence the next units when their time has come."""
        super().before_step(context)
        due = round_at(context.step, context.total_steps, self.method.rounds, self.method.until)
        if due is not None:
            self.approach(context, progress_at(due / self.method.rounds, self.method.schedule))

    def plan(self, context: StepContext) -> Plan:
        """Return the plan that removes what is gone, and more if the budget asks for it."""
        return self.settle(context)


ENTRY = Iterative
