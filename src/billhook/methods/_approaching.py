"""Coming down to a budget step by step: what has left stays silent, and does not come back."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from billhook.allocate.allocator import Allocator
from billhook.criteria import Criterion
from billhook.graph import Plan
from billhook.graph.plan import Keep
from billhook.methods._base import Problem
from billhook.methods._decide import decide, formula_limits, keep_within
from billhook.methods._parts import scores_of
from billhook.methods._training import MethodCallback
from billhook.methods._units import HeldSilence
from billhook.train import StepContext


class Approaching(MethodCallback):
    """Remembers which units are gone, and the budget as formulas; subclasses say when more leaves.

    Args:
        problem: What shall shrink.
        criterion: Says which units of a group stay, by the weights of the moment.
        allocator: How width is shared out.
    """

    def __init__(self, problem: Problem, criterion: Criterion, allocator: Allocator) -> None:
        super().__init__(problem)
        self.criterion, self.allocator = criterion, allocator
        self.branches = problem.graph.branches
        self._silence = HeldSilence(self.groups, self.branches)

    def begin(self, context: StepContext) -> None:
        """Nothing is gone yet; raises `BudgetError` before anything is trained."""
        scores = scores_of(self.problem, context.model, self.criterion)
        plan = decide(self.problem, scores, self.allocator, branches=self.branches)
        self.memory["limits"] = formula_limits(self.problem, plan)
        self.memory["overhead"] = plan.made_by.get("overhead", 0.0)
        self.memory["gone"] = {g.id: torch.zeros(g.size, dtype=torch.bool) for g in self.groups}

    def approach(self, context: StepContext, progress: float) -> None:
        """Let units leave until every cost has come so far from the original's to its limit."""
        keep = keep_within(
            self.problem,
            scores_of(self.problem, context.model, self.criterion),
            self.allocator.knowing(self.memory["overhead"]),
            self.memory["limits"],
            progress=progress,
            gone=self.memory["gone"],
            branches=self.branches,
        )
        self._leave(context, keep)

    def settle(self, context: StepContext) -> Plan:
        """Return the plan that removes what is gone, and more if the budget asks for it."""
        scores = scores_of(self.problem, context.model, self.criterion)
        plan = decide(
            self.problem,
            scores,
            self.allocator.knowing(self.memory["overhead"]),
            gone=self.memory["gone"],
            branches=self.branches,
        )
        self._leave(context, plan.keep)
        return plan

    def after_step(self, context: StepContext) -> None:
        """Keep silent what is gone."""
        self._silence.hold_(context.model, self.memory["gone"])

    def _leave(self, context: StepContext, keep: Mapping[str, Keep]) -> None:
        self.memory["gone"] = {name: torch.from_numpy(~stays) for name, stays in keep.items()}
        self._silence.hold_(context.model, self.memory["gone"])
