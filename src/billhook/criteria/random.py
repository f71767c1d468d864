"""Random scores: the baseline that every comparison needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from billhook.criteria._base import Criterion, ScoreContext
from billhook.graph.groups import ChannelGroup
from billhook.registry import Info

INFO = Info("uniform random numbers, the baseline")


@dataclass(frozen=True)
class Random(Criterion):
    """U(0, 1), drawn from the seed and the name of the group."""

    def score(self, group: ChannelGroup, context: ScoreContext) -> Tensor:
        """Return one draw per unit: [size]."""
        return torch.rand(group.size, generator=context.generator(group))


ENTRY = Random
