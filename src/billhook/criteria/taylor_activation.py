"""Taylor expansion on activations: the first-order change of the loss when a feature map becomes zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from billhook.criteria._activations import OfActivations
from billhook.criteria._base import ScoreContext
from billhook.graph.groups import ChannelGroup
from billhook.registry import Info

INFO = Info(
    "first-order change of the loss per activation, absolute for each sample",
    "Molchanov et al., Pruning CNNs for Resource Efficient Inference, ICLR 2017, arXiv:1611.06440",
    needs_data=True,
)


@dataclass(frozen=True)
class TaylorActivation(OfActivations):
    """|mean over positions of a · ∂L/∂a|, averaged over samples, divided by the L2 norm of the group.

    Unlike `taylor`, effects of different samples cannot cancel out, and a map of many positions does not
    weigh more than one of few. See `OfActivations` for where activations are taken.

    References:
        Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference",
        ICLR 2017. arXiv:1611.06440.
    Differs from the source:
        Normalised within the coupled group instead of the layer. Scores are taken at once, in eval mode.
    """

    name: ClassVar[str] = "taylor_activation"
    gradients: ClassVar[bool] = True

    def measure(self, values: Tensor) -> Tensor:
        """Return the mean over positions: [samples, channels]."""
        return values.flatten(2).mean(2)

    def combine(self, readings: Sequence[Tensor]) -> Tensor:
        """Return the mean over readers and samples of the absolute change: [size]."""
        return torch.stack([r.mean(2).abs().mean(0) for r in readings]).mean(0)

    def score(self, group: ChannelGroup, context: ScoreContext) -> Tensor:
        """Return the normalised change per unit: [size]."""
        changes = context.units[group.id]
        norm = changes.norm()
        return changes / norm if norm > 0 else changes


ENTRY = TaylorActivation
