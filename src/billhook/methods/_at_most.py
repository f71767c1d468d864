"""A bound on what any group may lose, beside the budget."""

from __future__ import annotations

from dataclasses import dataclass, replace

from billhook.allocate.allocator import Allocator, Curve, Space
from billhook.allocate.costs import Work
from billhook.methods._asymptotic import count_at


@dataclass(frozen=True)
class AtMost(Allocator):
    """What another allocator chooses where no group loses more than the fraction `rate` of its units."""

    inner: Allocator
    rate: float

    def curve(self, space: Space, work: Work) -> Curve:
        """Return the widths of the other allocator among those that are wide enough."""
        least = [count_at(len(s), 0, self.rate) for s in space.scores]
        allowed = [a[a >= n] for a, n in zip(space.allowed, least, strict=True)]
        return self.inner.curve(replace(space, allowed=allowed), work)

    def work(self, space: Space) -> Work:
        """Return what the other allocator says."""
        return self.inner.work(space)
