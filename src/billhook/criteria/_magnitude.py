"""What L1 and L2 share: a norm per unit, over all weights the unit takes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from billhook.criteria._base import Criterion, ScoreContext
from billhook.criteria._members import WHICH, others, per_unit, weights
from billhook.graph.groups import ChannelGroup
from billhook.options import OneOf, option


def power_sum(weight: Tensor, axis: int, power: int) -> Tensor:
    """Return Σ |w|^power over all other axes: [n], float32."""
    return (weight.abs() if power == 1 else weight.square()).sum(others(weight, axis), dtype=torch.float32)


@dataclass(frozen=True)
class Magnitude(Criterion):
    power: ClassVar[int] = 2
    members: str = option("all", OneOf(*WHICH), "")
    reduce: str = option("norm", OneOf("norm", "mean", "product"), "")

    def unsupported(self, group, context):
        if weights(group, context.tensors, self.members):
            return None
        return "it owns no weights"

    def score(self, group: ChannelGroup, context: ScoreContext) -> Tensor:
        sums = {}
        for m in weights(group, context.tensors, self.members):
            tensor = context.tensors[m.tensor]
            sums.setdefault(m.role, []).append(per_unit(power_sum(tensor, m.axis, self.power), m))
        if self.reduce == "norm":
            total = sum(t for s in sums.values() for t in s)
            return total.pow(1 / self.power)
        if self.reduce == "mean":
            return sum((t / t.mean()).pow(1 / self.power) for s in sums.values() for t in s)
        out = torch.ones(group.size)
        for s in sums.values():
            out = out * sum(s).pow(1 / self.power)
        return out
