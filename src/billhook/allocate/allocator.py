"""`Allocator`: a family of widths between nothing and everything."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from billhook.options import Configurable

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Allocator(Configurable, ABC):
    """Says how many units each group would keep, for every amount t from 0 to 1.

    The family must be monotone: no group gets fewer units when t grows, none at t = 0 and all at t = 1.
    Then every cost grows with t as well, and the largest t within a budget can be found by bisection.
    """

    @abstractmethod
    def wanted(self, scores: Sequence[Floats], amounts: Floats) -> Floats:
        """Return the number of units per amount and group, not yet rounded: [amounts, groups].

        Args:
            scores: Per group, one score per unit; higher = keep.
            amounts: Values of t; shape [amounts].
        """
