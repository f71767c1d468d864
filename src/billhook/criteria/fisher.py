"""Fisher: the second-order change of the loss when a feature map becomes zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from billhook.criteria._activations import OfActivations
from billhook.registry import Info

INFO = Info(
    "half the mean squared first-order change of each sample's loss",
    "Theis et al., Faster gaze prediction with dense networks and Fisher pruning, 2018, arXiv:1801.05787",
    needs_data=True,
)


@dataclass(frozen=True)
class Fisher(OfActivations):
    """½ N⁻¹ Σ_n (Σ a · ∂L_n/∂a)², the sums over all positions of the unit's maps.

    The inner sum is the derivative of sample n's loss with respect to a gate on the unit; its mean square
    is the empirical Fisher information, which stands for the second derivative at a minimum of the loss.

    Where several layers read a unit, one gate stands in front of all of them: their sums are added before
    they are squared, as for coupled channels in Liu et al., and not averaged. So are the channels of a unit.

    References:
        Theis et al., "Faster gaze prediction with dense networks and Fisher pruning", 2018.
        arXiv:1801.05787.
        Liu et al., "Group Fisher Pruning for Practical Network Compression", ICML 2021.
    Differs from the source:
        No cost of computation in the score; budgets are left to allocators. Scores are taken at once, in
        eval mode.
    """

    additive: ClassVar[bool] = True
    name: ClassVar[str] = "fisher"
    gradients: ClassVar[bool] = True

    def measure(self, values: Tensor) -> Tensor:
        """Return the sum over positions: [samples, channels]."""
        return values.flatten(2).sum(2)

    def combine(self, readings: Sequence[Tensor]) -> Tensor:
        """Return half the mean square of the samples' sums: [size]."""
        return torch.stack([r.sum(2) for r in readings]).sum(0).square().mean(0) / 2


ENTRY = Fisher
