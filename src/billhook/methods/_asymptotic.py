"""Fixed widths that are approached round by round: what soft filter and cluster pruning share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping

from billhook.allocate.allocator import Allocator
from billhook.graph import Plan
from billhook.graph.plan import Keep
from billhook.methods._base import Problem
from billhook.methods._fixed_widths import FixedWidths
from billhook.train import StepContext

SCHEDULES = ("constant", "asymptotic", "linear", "cosine", "polynomial")

# Solves (1 − e^(−κ/8)) / (1 − e^(−κ)) = 3/4: after an eighth of the run three quarters are reached. With
# q = e^(−κ/8) the equation is 1 − q = ¾ (1 − q⁸); its root below 1 is q = 0.25001.
_KAPPA = 11.08999


def fraction_at(done: float, schedule: str) -> float:
    """Return the pruning rate after the fraction `done` of the run, as a fraction of the final rate.

    "asymptotic" is the rule of ASFP, (1 − e^(−κt)) / (1 − e^(−κ)) with κ such that t = 1/8 gives 3/4; the
    others are t, (1 − cos πt) / 2, 1 − (1 − t)³ and 1.

    References:
        He et al., "Asymptotic Soft Filter Pruning for Deep Convolutional Neural Networks", IEEE Trans.
        Cybernetics 2020, section III. arXiv:1808.07471.
    """
    t = min(1.0, max(0.0, done))
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return t
    if schedule == "cosine":
        return (1 - math.cos(math.pi * t)) / 2
    if schedule == "polynomial":
        return 1 - (1 - t) ** 3
    return math.expm1(-_KAPPA * t) / math.expm1(-_KAPPA)


def count_at(size: int, count: int, fraction: float) -> int:
    """Return how many of `size` units stay when `fraction` of those that will leave are out.

    What is out is rounded down, so that no unit leaves early; at 1 exactly `count` stay.
    """
    return size - math.floor(fraction * (size - count) + 1e-9)


def round_after(step: int, total: int, rounds: int) -> bool:
    """Return True if a round is held after `step`; the last of the `rounds` comes when the run is over."""
    done = step + 1
    return done < total and done * rounds // total > step * rounds // total


class AsymptoticCallback(FixedWidths):
    """Chooses the units anew in every round; fewer and fewer stay, down to the widths.

    Args:
        problem: What shall shrink.
        allocator: How width is shared out.
        rounds: Rounds in the run; the last one when training is over.
        schedule: How the number of units that are out grows; see `fraction_at`.
        until: Part of the run after which all of them are.
    """

    def __init__(
        self, problem: Problem, allocator: Allocator, *, rounds: int, schedule: str, until: float
    ) -> None:
        super().__init__(problem, allocator)
        self.rounds, self.schedule, self.until = rounds, schedule, until

    @abstractmethod
    def hold_round(self, context: StepContext, counts: Mapping[str, int], *, last: bool) -> dict[str, Keep]:
        """Change the weights so that `counts` units per group do the work; return which ones."""

    def after_step(self, context: StepContext) -> None:
        """Hold a round when one is due."""
        if round_after(context.step, context.total_steps, self.rounds):
            done = (context.step + 1) / context.total_steps / self.until
            self.hold_round(context, self._counts(fraction_at(done, self.schedule)), last=False)

    def plan(self, context: StepContext) -> Plan:
        """Hold the last round, and return the plan that removes what it left idle."""
        return self.plan_with(self.hold_round(context, self._counts(1.0), last=True))

    def _counts(self, fraction: float) -> dict[str, int]:
        final = self.decided.counts
        return {g.id: count_at(g.size, final[g.id], fraction) for g in self.groups}
