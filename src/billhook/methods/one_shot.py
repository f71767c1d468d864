"""One-shot pruning: score once, share the width out, remove."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from billhook.allocate import allocators
from billhook.allocate.allocator import Allocator
from billhook.criteria import Criterion, criteria, score
from billhook.graph import Plan
from billhook.methods._base import Method, Problem
from billhook.methods._decide import decide
from billhook.options import configure
from billhook.registry import Info

INFO = Info("scores every unit once and keeps the best", notes="any criterion with any allocator")


@dataclass(frozen=True)
class OneShot(Method):
    """A criterion says which units of a group stay, an allocator how many.

    Attributes:
        criterion: Name of the criterion.
        options: Its options.
        allocator: Name of the allocator.
        allocator_options: Its options.
    """

    criterion: str = "l2"
    options: Mapping[str, Any] = field(default_factory=dict)
    allocator: str = "global"
    allocator_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.parts()  # wrong names and options fail here, not after the capture of a large network

    def parts(self) -> tuple[Criterion, Allocator]:
        """Return the criterion and the allocator."""
        criterion = configure(
            criteria.get(self.criterion), self.options, what=f"criterion {self.criterion!r}"
        )
        allocator = configure(
            allocators.get(self.allocator), self.allocator_options, what=f"allocator {self.allocator!r}"
        )
        return criterion, allocator

    def plan(self, problem: Problem) -> Plan:
        """Return the widest network within the budget, made of the best units of every group."""
        criterion, allocator = self.parts()
        scores = score(
            criterion,
            problem.model,
            problem.groups,
            calibration=problem.calibration,
            seed=problem.seed,
        )
        return decide(problem, scores, allocator)


ENTRY = OneShot
