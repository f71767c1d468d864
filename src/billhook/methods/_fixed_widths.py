"""Widths that are decided once, before the first step, while units may still change places."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor

from billhook.allocate.allocator import Allocator
from billhook.graph import Plan
from billhook.graph.branches import Branch
from billhook.graph.plan import Keep
from billhook.methods._base import Problem
from billhook.methods._decide import decide, with_units
from billhook.methods._training import MethodCallback
from billhook.train import StepContext


class FixedWidths(MethodCallback):
    """Decides how many units of each group stay; subclasses choose which, and may take until the end.

    Remembers the plan of the first step, as text. A subclass that can train a network with emptied groups
    sets `branches` to the residual branches that may leave.

    Args:
        problem: What shall shrink.
        allocator: How width is shared out.
    """

    branches: Sequence[Branch] = ()

    def __init__(self, problem: Problem, allocator: Allocator) -> None:
        super().__init__(problem)
        self.allocator = allocator
        self._read: tuple[str, Plan] | None = None

    @abstractmethod
    def scores(self, context: StepContext) -> dict[str, Tensor]:
        """Return the scores that the widths are decided with."""

    def begin(self, context: StepContext) -> None:
        """Decide the widths; raises `BudgetError` before anything is trained."""
        plan = decide(self.problem, self.scores(context), self.allocator, branches=self.branches)
        self.memory["plan"] = plan.to_json()

    @property
    def decided(self) -> Plan:
        """The plan of the first step: its widths stand, its units need not."""
        text = self.memory["plan"]
        if self._read is None or self._read[0] != text:
            self._read = text, Plan.from_json(text)
        return self._read[1]

    def plan_with(self, keep: Mapping[str, Keep]) -> Plan:
        """Return the decided plan with other units of the groups in `keep`, as many as before."""
        return with_units(self.problem, self.decided, {**self.decided.keep, **keep})
