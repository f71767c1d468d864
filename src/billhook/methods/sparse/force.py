"""FORCE: weights leave in rounds and may come back when the sparser network would feel them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from billhook.methods.sparse._sensitivity import Sensitive
from billhook.registry import Info

INFO = Info(
    "SNIP in many rounds, on the gradient of the pruned network; what has left may come back",
    "de Jorge et al., Progressive Skeletonization, ICLR 2021, arXiv:2006.09081",
    needs_data=True,
    notes="made for untrained networks and sparsities above 95%; train afterwards",
)


@dataclass(frozen=True)
class Force(Sensitive):
    """Keeps the largest |θ · g(θ ⊙ m)|: dense weights, but the gradient of the network as pruned so far.

    References:
        de Jorge et al., "Progressive Skeletonization: Trimming more fat from a network at initialization",
        ICLR 2021, eq. (5) and alg. 1 (FORCE). arXiv:2006.09081.
    Differs from the source:
        Of a pattern's units, the sums count. Eval mode. At least one unit of every tensor stays.
    """

    returning: ClassVar[bool] = True


ENTRY = Force
