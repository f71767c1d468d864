"""Iterative SNIP: a few weights leave at a time, and the rest is scored without them."""

from __future__ import annotations

from dataclasses import dataclass

from billhook.methods.sparse._sensitivity import Sensitive
from billhook.registry import Info

INFO = Info(
    "SNIP in many rounds; what has left stays away",
    "de Jorge et al., Progressive Skeletonization, ICLR 2021, arXiv:2006.09081",
    needs_data=True,
    notes="made for untrained networks and sparsities above 95%; train afterwards",
)


@dataclass(frozen=True)
class IterSnip(Sensitive):
    """Keeps the largest |θ · ∂L/∂θ| of the weights that are left, in rounds.

    References:
        de Jorge et al., "Progressive Skeletonization: Trimming more fat from a network at initialization",
        ICLR 2021, section 4 (Iterative SNIP). arXiv:2006.09081.
    Differs from the source:
        Of a pattern's units, the sums count. Eval mode. At least one unit of every tensor stays.
    """


ENTRY = IterSnip
