"""SNIP: weights leave whose absence the loss would not feel, before the network is trained."""

from __future__ import annotations

from dataclasses import dataclass

from billhook.methods.sparse._sensitivity import Sensitive
from billhook.options import Number, option
from billhook.registry import Info

INFO = Info(
    "lets weights leave by the derivative of the loss with respect to a factor on each",
    "Lee et al., SNIP, ICLR 2019, arXiv:1810.02340",
    needs_data=True,
    notes="made for untrained networks; train afterwards",
)


@dataclass(frozen=True)
class Snip(Sensitive):
    """Keeps the largest |θ · ∂L/∂θ|, all tensors by one threshold.

    θ · ∂L/∂θ is the derivative of the loss with respect to a factor m = 1 in front of θ.

    References:
        Lee et al., "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019, eq. (5).
        arXiv:1810.02340.
    Differs from the source:
        Of a pattern's units, the sums count. The network is scored as it is, in eval mode; the source's code
        scores a newly initialised copy. At least one unit of every tensor stays.
    """

    rounds: int = option(1, Number(1, integer=True), "how often weights are scored and leave")


ENTRY = Snip
