"""FPGM: filters near the geometric median of their layer can be expressed by the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from billhook.criteria._base import Criterion, ScoreContext
from billhook.criteria._members import WHICH, unit_rows, weights
from billhook.graph.groups import ChannelGroup
from billhook.options import OneOf, option
from billhook.registry import Info

INFO = Info(
    "summed distance to the other filters: redundancy, not size",
    "He et al., Filter Pruning via Geometric Median, CVPR 2019, arXiv:1811.00250",
)


def summed_distances(features: Iterable[Tensor]) -> Tensor:
    """Return Σ_i ‖x_j − x_i‖₂ for every row j of the given matrices laid side by side.

    Takes time in proportion to n² · d and memory to n². Rows are centred first: distances stay the same,
    and the difference of large products loses no digits to a common offset.

    Args:
        features: Matrices [n, d], one at a time; each may have its own d.
    Returns:
        Tensor [n], float32.
    """
    squared = torch.zeros(())
    for rows in features:
        centred = rows.float() - rows.float().mean(0)
        norms = centred.square().sum(1)
        squared = squared.to(norms.device) + norms[:, None] + norms[None, :] - 2 * centred @ centred.T
    return squared.fill_diagonal_(0).clamp_min(0).sqrt().sum(1)


@dataclass(frozen=True)
class Fpgm(Criterion):
    """Summed Euclidean distance of a unit's weights to those of all other units of the group.

    The weights of all coupled layers count as one long filter, so two units are alike if they are made
    alike and read alike. With half of the MACs removed from a small ResNet and a small VGG trained on
    Fashion-MNIST, and only batch-norm statistics renewed, that gave 10 and 7 points more accuracy than
    filters alone (uniform widths, mean of two seeds).

    References:
        He et al., "Filter Pruning via Geometric Median for Deep Convolutional Neural Networks
        Acceleration", CVPR 2019, eq. (4).
    Differs from the source:
        Coupled layers count as well; members="out" compares filters only, as the source does. No preceding
        selection by norm (the source's setting FPGM-only).
    """

    members: str = option("all", OneOf(*WHICH), "weights that count: of all layers, or of the producers")

    def unsupported(self, group: ChannelGroup, context: ScoreContext) -> str | None:
        """Return a reason for groups that no layer with weights produces."""
        if weights(group, context.tensors, self.members):
            return None
        return f"it has no weights for members={self.members!r}"

    def score(self, group: ChannelGroup, context: ScoreContext) -> Tensor:
        """Return the summed distance per unit: [size]."""
        members = weights(group, context.tensors, self.members)
        return summed_distances(unit_rows(context.tensors[m.tensor], m) for m in members)


ENTRY = Fpgm
