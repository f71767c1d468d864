"""Group norm of DepGraph: the squared weights of every slice that leaves with a unit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from billhook.criteria._base import Criterion, ScoreContext
from billhook.criteria._magnitude import power_sums
from billhook.criteria._members import per_unit
from billhook.graph.groups import ChannelGroup, Member
from billhook.options import OneOf, option
from billhook.registry import Info

INFO = Info(
    "mean squared norm of all coupled slices, norms included",
    "Fang et al., DepGraph, CVPR 2023, arXiv:2301.12900",
)


@dataclass(frozen=True)
class GroupNorm(Criterion):
    """Mean over all coupled slices (filters, scales of norms, columns of readers) of Σ w², by group mean.

    How it differs from `l2`: scales of batch and layer norms count as well, each as one slice; there is no
    root, so a group's scores spread more; and a unit that nobody makes, but somebody reads, is not set to 0.

    References:
        Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, section 3.3. arXiv:2301.12900.
    Differs from the source:
        Depthwise filters count too; the source's code passes them over. Biases do not, as in that code.
    """

    normalize: str = option("mean", OneOf("mean", "none"), "what the scores of a group are divided by")

    def unsupported(self, group: ChannelGroup, context: ScoreContext) -> str | None:
        """Return a reason for groups without weights or scales."""
        return None if _slices(group, context) else "it has no weights"

    def score(self, group: ChannelGroup, context: ScoreContext) -> Tensor:
        """Return the mean squared norm per unit: [size]."""
        slices = _slices(group, context)
        norms = [per_unit(power_sums(context.tensors[m.tensor], m.axis, 2), m) for m in slices]
        importance = torch.stack(norms).mean(0)
        mean = importance.mean()
        return importance / mean if self.normalize == "mean" and mean > 0 else importance


def _slices(group: ChannelGroup, context: ScoreContext) -> list[Member]:
    """Return the members that are weights or scales: no biases, statistics or indices."""
    return [
        m
        for m in group.members
        if context.tensors[m.tensor].is_floating_point()
        if not m.tensor.endswith(("bias", "running_mean", "running_var"))
    ]


ENTRY = GroupNorm
