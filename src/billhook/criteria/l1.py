"""L1 norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from billhook.criteria._magnitude import Magnitude
from billhook.registry import Info

INFO = Info(
    "sum of absolute weights over all coupled layers",
    "Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, arXiv:1608.08710",
)


@dataclass(frozen=True)
class L1(Magnitude):
    """Σ |w| over the weights of all layers that make, pass on, or read the unit; see `Magnitude`.

    References:
        Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017. arXiv:1608.08710.
    Differs from the source:
        Coupled layers count as well; members="out" looks at filters only, as the source does.
    """

    power: ClassVar[Literal[1, 2]] = 1


ENTRY = L1
