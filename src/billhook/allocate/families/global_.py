"""One threshold for all groups, on normalised scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from billhook.allocate.allocator import Sharing
from billhook.allocate.costs import Floats
from billhook.allocate.families._scale import normalized
from billhook.options import Number, OneOf, option
from billhook.registry import Info

INFO = Info("one threshold for all groups, on normalised scores")


@dataclass(frozen=True)
class Global(Sharing):
    """The best fraction t of all units of the network stays, wherever they are.

    Scores of different groups have different scales, so each group is divided by its own mean first. A
    group of equals then sits at 1, and units leave where scores are uneven.

    After fine-tuning, this and uniform widths came out within 0.8 points of each other, with either
    sign: a small ResNet and a small VGG on Fashion-MNIST, 50 % and 25 % of the MACs, L2, FPGM and Taylor,
    mean of two seeds. Before fine-tuning, dividing by the maximum instead mostly cost 5 to 35 points.
    """

    normalize: str = option("mean", OneOf("mean", "max", "none"), "what scores of a group are divided by")
    floor: float = option(0.25, Number(0, 1), "no group keeps less than this fraction of its uniform share")

    def wanted(self, scores: Sequence[Floats], amounts: Floats) -> Floats:
        """Return how many of each group's units are among the best t of all: [amounts, groups]."""
        sizes = np.array([len(s) for s in scores])
        pooled = np.concatenate([normalized(s, self.normalize) for s in scores])
        ranks = np.empty(len(pooled), dtype=np.int64)
        ranks[np.argsort(-pooled, kind="stable")] = np.arange(len(pooled))
        own = np.split(ranks, np.cumsum(sizes)[:-1])
        kept = np.rint(amounts * len(pooled))
        best = np.stack([np.searchsorted(np.sort(r), kept) for r in own], axis=1)
        return np.maximum(best, np.outer(amounts * self.floor, sizes))


ENTRY = Global
