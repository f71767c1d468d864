"""Batch-norm scale: a small |γ| lets little of its channel through."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from billhook.criteria._base import Criterion, ScoreContext
from billhook.criteria._members import per_unit
from billhook.graph.groups import ChannelGroup, Member
from billhook.options import OneOf, option
from billhook.registry import Info

INFO = Info(
    "absolute scale of the batch norms behind a channel",
    "Liu et al., Network Slimming, ICCV 2017, arXiv:1708.06519",
    notes="needs a batch norm in every group; made for networks trained with an L1 penalty on the scales",
)


@dataclass(frozen=True)
class BnScale(Criterion):
    """|γ| of the batch norms that a channel passes through.

    Channels that are added up (residual trunks) pass through several; "mean" judges them together, "max"
    keeps what any of them lets through.

    References:
        Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017.
        arXiv:1708.06519.
    Differs from the source:
        Scores of whole coupled groups instead of a channel-selection layer in front of each block.
    """

    reduce: str = option("mean", OneOf("mean", "max"), "over the batch norms of a group")

    def unsupported(self, group: ChannelGroup, context: ScoreContext) -> str | None:
        """Return a reason for groups without a batch norm that has a scale."""
        return None if _batch_norms(group, context) else "it passes through no batch norm with a scale"

    def score(self, group: ChannelGroup, context: ScoreContext) -> Tensor:
        """Return mean or maximum of |γ| per unit: [size]."""
        scales = [per_unit(context.tensors[m.tensor].float().abs(), m) for m in _batch_norms(group, context)]
        reduced = sum(scales[1:], scales[0]) / len(scales)
        if self.reduce == "max":
            for scale in scales:
                reduced = reduced.maximum(scale)
        return reduced


def _batch_norms(group: ChannelGroup, context: ScoreContext) -> list[Member]:
    """Return the members that are scales of batch norms: those have a running variance beside them."""
    return [
        m
        for m in group.members
        if m.tensor.endswith("weight") and f"{m.tensor.removesuffix('weight')}running_var" in context.tensors
    ]


ENTRY = BnScale
