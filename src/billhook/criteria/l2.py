"""L2 norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from billhook.criteria._magnitude import Magnitude
from billhook.registry import Info

INFO = Info(
    "Euclidean norm of the weights of all coupled layers",
    "Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, arXiv:1608.08710",
)


@dataclass(frozen=True)
class L2(Magnitude):
    """√Σ w² over the weights of all layers that make, pass on, or read the unit; see `Magnitude`.

    References:
        Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017. arXiv:1608.08710.
        Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023 (the norm over coupled layers).
    """

    power: ClassVar[Literal[1, 2]] = 2


ENTRY = L2
