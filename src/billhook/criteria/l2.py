from __future__ import annotations
from dataclasses import dataclass
from billhook.criteria._magnitude import Magnitude
from billhook.registry import Info

INFO = Info("L2 norm of all coupled weights")


@dataclass(frozen=True)
class L2(Magnitude):
    pass


ENTRY = L2
