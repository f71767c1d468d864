"""APoZ: a unit that is zero most of the time has little to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from billhook.criteria._activations import OfActivations
from billhook.registry import Info

INFO = Info(
    "share of the activations that are not zero",
    "Hu et al., Network Trimming, 2016, arXiv:1607.03250",
    needs_data=True,
    notes="made for ReLU; behind functions that are never zero all units score 1",
)


@dataclass(frozen=True)
class Apoz(OfActivations):
    """1 − APoZ, where APoZ is the average percentage of zeros; see `OfActivations` for where it is taken.

    References:
        Hu et al., "Network Trimming: A Data-Driven Neuron Pruning Approach towards Efficient Deep
        Architectures", 2016. arXiv:1607.03250.
    Differs from the source:
        The complement, so that higher means keep. Zeros are counted where the unit is read, for instance
        behind pooling, not directly behind the activation function.
    """

    name: ClassVar[str] = "apoz"

    def measure(self, values: Tensor) -> Tensor:
        """Return the share of positions that are not zero: [rows, channels]."""
        return values.ne(0).flatten(2).float().mean(2)


ENTRY = Apoz
