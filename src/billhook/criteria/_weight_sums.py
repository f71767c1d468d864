"""What criteria on single weights share: one number per weight, summed over what a unit takes with it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from billhook.criteria._base import Axis, Calibration, Criterion, ScoreContext
from billhook.criteria._members import others, per_unit, weights
from billhook.graph.groups import ChannelGroup


@dataclass(frozen=True)
class WeightSums(Criterion):
    """Adds up the importance of the weights of all layers that make, pass on, or read the unit.

    Only weights count, as in the sources: no biases and no parameters of norms, unless a group has no others.
    Takes memory for one or two copies of these weights.
    """

    @abstractmethod
    def importance(
        self,
        model: nn.Module,
        names: Sequence[str],
        context: ScoreContext,
        calibration: Calibration | None,
    ) -> Mapping[str, Tensor]:
        """Return the importance of every single weight of the tensors called `names`."""

    def unsupported(self, group: ChannelGroup, context: ScoreContext) -> str | None:
        """Return a reason for groups without weights."""
        return None if weights(group, context.tensors) else "it has no weights"

    def prepare(
        self,
        model: nn.Module,
        groups: Sequence[ChannelGroup],
        context: ScoreContext,
        calibration: Calibration | None,
    ) -> ScoreContext:
        """Return `context` with the sums along the axes of all `groups`."""
        axes = {(m.tensor, m.axis): None for g in groups for m in weights(g, context.tensors)}
        # Sorted, because sums over all weights must not depend on the order of groups.
        found = self.importance(model, sorted({name for name, _ in axes}), context, calibration)
        sums: dict[Axis, Tensor] = {}
        for name, axis in axes:
            values = found[name]
            wide = torch.promote_types(values.dtype, torch.float32)
            # Of a vector there are no other axes to sum over, and `sum` would take all.
            along = values.sum(others(values, axis), dtype=wide) if values.dim() > 1 else values.to(wide)
            sums[name, axis] = along[None]
        return replace(context, saliency=sums)

    def score(self, group: ChannelGroup, context: ScoreContext) -> Tensor:
        """Return the sum over all weights per unit: [size]."""
        members = weights(group, context.tensors)
        sums = [per_unit(context.saliency[m.tensor, m.axis], m) for m in members]
        return sum(sums[1:], sums[0])[0]


def share(importance: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `importance` divided by the absolute value of its sum, so that models and losses compare."""
    total = sum(float(v.sum(dtype=torch.float64)) for v in importance.values())
    return {name: v / (abs(total) or 1.0) for name, v in importance.items()}
