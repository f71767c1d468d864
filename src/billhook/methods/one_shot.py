"""One-shot pruning: score once, share the width out, remove."""

from __future__ import annotations

from dataclasses import dataclass

from billhook.criteria import ScoreContext
from billhook.criteria._score import check_supported
from billhook.methods._base import Method, Outcome, Problem
from billhook.methods._decide import decide
from billhook.methods._parts import Allocating, Scoring, scores_of
from billhook.registry import Info

INFO = Info("scores every unit once and keeps the best", notes="any criterion with any allocator")


@dataclass(frozen=True)
class OneShot(Allocating, Scoring, Method):
    """A criterion says which units of a group stay, an allocator how many."""

    def check(self, problem: Problem) -> None:
        """Raise `InputError` if the criterion cannot judge a group in scope."""
        check_supported(self.scoring(), problem.groups, ScoreContext.of(problem.model))

    def run(self, problem: Problem) -> Outcome:
        """Return the widest network within the budget, made of the best units of every group."""
        scores = scores_of(problem, problem.model, self.scoring())
        plan = decide(problem, scores, self.allocating(), branches=problem.graph.branches)
        return Outcome(plan, problem.model)


ENTRY = OneShot
