"""`Allocator`: a family of widths between the smallest and the full network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from billhook.allocate.costs import Floats, PlanCosts, Work
from billhook.allocate.rounding import Counts, nearest
from billhook.options import Configurable

Curve = Callable[[Floats], Counts]  # amounts t [amounts] → units that stay [amounts, groups]


@dataclass(frozen=True)
class Space:
    """What an allocator chooses from.

    Attributes:
        scores: Per group, one score per unit; higher = keep.
        allowed: Per group, the numbers of units it may keep, increasing; the last one is all there is.
        branches: Residual branches that may leave whole: positions of the groups inside. A branch may lie
            within another; its groups are then among those of both.
        costs: Costs of rows of counts.
        seconds: Measures one row of counts on the runtime: its time relative to the original network's. None
            where there is no latency bound.
    """

    scores: Sequence[Floats]
    allowed: Sequence[Counts]
    branches: Sequence[tuple[int, ...]]
    costs: PlanCosts
    seconds: Callable[[Counts], float] | None = None


@dataclass(frozen=True)
class Allocator(Configurable, ABC):
    """Says how many units each group keeps, for every amount t from 0 to 1.

    The family must be nested: no group gets fewer units when t grows. Then every cost grows with t as well,
    and the largest t within a budget can be found by bisection. At t = 0 it is the smallest network the
    allocator may choose, at t = 1 all groups keep the last of their allowed numbers.

    A group keeps one of its allowed numbers. If it lies in a branch it may also keep none, but then nothing
    is kept of any group in that branch.
    """

    @abstractmethod
    def curve(self, space: Space, work: Work) -> Curve:
        """Return the widths as a function of t.

        Args:
            space: Scores, allowed widths, branches and costs.
            work: What `work` has returned.
        """

    def work(self, space: Space) -> Work:
        """Return what time is taken to grow with; MACs alone, unless the allocator knows better."""
        return Work()

    def judging(self, *, additive: bool) -> Allocator:
        """Return this allocator for scores of one kind.

        Args:
            additive: Scores of different groups are on one scale and add up, as changes of the loss do.
        """
        return self

    def knowing(self, overhead: float) -> Allocator:
        """Return this allocator for decisions that cannot measure, after one that did.

        Args:
            overhead: MACs that take as long as a layer does however narrow it is, as they were measured.
        """
        return self


@dataclass(frozen=True)
class Sharing(Allocator):
    """An allocator that looks at nothing but scores; what it wants is rounded, and no branch leaves."""

    @abstractmethod
    def wanted(self, scores: Sequence[Floats], amounts: Floats) -> Floats:
        """Return the number of units per amount and group, not yet rounded: [amounts, groups].

        No group may get fewer units when t grows, none at t = 0, and all at t = 1.

        Args:
            scores: Per group, one score per unit; higher = keep.
            amounts: Values of t; shape [amounts].
        """

    def curve(self, space: Space, work: Work) -> Curve:
        """Return the allowed widths nearest to what is wanted."""

        def at(amounts: Floats) -> Counts:
            wanted = self.wanted(space.scores, amounts)
            return np.stack([nearest(w, a) for w, a in zip(wanted.T, space.allowed, strict=True)], axis=1)

        return at
