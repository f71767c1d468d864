"""First-order Taylor: the squared change of the loss when a unit leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from billhook.criteria._base import Calibration, Criterion, ScoreContext
from billhook.criteria._members import per_unit, weights
from billhook.criteria._passes import needed
from billhook.criteria._saliency import saliency
from billhook.graph.groups import ChannelGroup, Member
from billhook.options import Number, OneOf, option
from billhook.registry import Info

INFO = Info(
    "squared first-order change of the loss",
    "Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, arXiv:1906.10771",
    needs_data=True,
)


@dataclass(frozen=True)
class Taylor(Criterion):
    """Mean over batches of (Σ w · ∂L/∂w)².

    Form "gate" sums over the weights that read the unit, which is a · ∂L/∂a of its activation a: the
    change to first order when the unit is silenced, whatever normalisation stands in between. Form
    "weight" sums over the weights that produce it; after a batch norm this misses the norm's shift.
    The gates through which copies of channels are read (`billhook.fuse`) count as weights that read. Copies
    themselves are produced by a list of numbers, which has no gradient, so both forms look at who reads them.

    References:
        Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, eq. (8), (9).
    Differs from the source:
        Scores are taken at once in eval mode, not as a running mean during training. The gate needs no
        extra layer, and sits where the unit is read, behind the activation function.
    """

    additive: ClassVar[bool] = True

    form: str = option("gate", OneOf("gate", "weight"), "where the change is taken")
    batches: int = option(30, Number(1, integer=True), "use at most this many batches")

    def unsupported(self, group: ChannelGroup, context: ScoreContext) -> str | None:
        """Return a reason for groups without a weight on the side that the form looks at."""
        if self._members(group, context):
            return None
        other = "weight" if self.form == "gate" else "gate"
        return f"it has no weights for form={self.form!r}; use form={other!r}"

    def prepare(
        self,
        model: nn.Module,
        groups: Sequence[ChannelGroup],
        context: ScoreContext,
        calibration: Calibration | None,
    ) -> ScoreContext:
        """Return `context` with the saliency along the axes of all `groups`."""
        calibration = needed(calibration, "taylor")
        axes = {(m.tensor, m.axis): None for g in groups for m in self._members(g, context)}
        found = saliency(model, list(axes), calibration, batches=self.batches, seed=context.seed)
        return replace(context, saliency=found)

    def score(self, group: ChannelGroup, context: ScoreContext) -> Tensor:
        """Return the squared first-order change per unit: [size]."""
        changes = [per_unit(context.saliency[m.tensor, m.axis], m) for m in self._members(group, context)]
        return sum(changes[1:], changes[0]).square().mean(0)

    def _members(self, group: ChannelGroup, context: ScoreContext) -> tuple[Member, ...]:
        tensors = context.tensors
        produced = weights(group, tensors, "out")
        copied = any(m.role == "out" and not tensors[m.tensor].is_floating_point() for m in group.members)
        if self.form == "weight" and not (copied and all(tensors[m.tensor].dim() < 2 for m in produced)):
            return produced
        return tuple(m for m in group.members if m.role == "in" and tensors[m.tensor].is_floating_point())


ENTRY = Taylor
