"""The same fraction of every group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from billhook.allocate.allocator import Sharing
from billhook.allocate.costs import Floats
from billhook.registry import Info

INFO = Info("the same fraction of every group")


@dataclass(frozen=True)
class Uniform(Sharing):
    """Every group keeps the fraction t of its units, whatever their scores."""

    def wanted(self, scores: Sequence[Floats], amounts: Floats) -> Floats:
        """Return t · size: [amounts, groups]."""
        return np.outer(amounts, [len(s) for s in scores])


ENTRY = Uniform
