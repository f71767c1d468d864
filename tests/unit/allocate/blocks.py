"""Costs of a made-up residual network: a trunk, and three blocks of two layers each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from billhook.allocate.allocator import Space
from billhook.allocate.costs import PlanCosts

TRUNK, INNER = 4, (4, 3, 4)
AREAS = np.array([4.0, 2.0, 1.0])


class Blocks:
    """macs = 30·t + Σ 2·area·t·b, layers = 2 + 2 for each block that has units left; t, b units kept."""

    group_ids = ("trunk", "block0", "block1", "block2")
    sizes = np.array([TRUNK, *INNER])

    def __init__(self) -> None:
        self.calls = 0

    def evaluate(self, counts: np.ndarray, *, metrics: Sequence[str]) -> dict[str, np.ndarray]:
        self.calls += 1
        trunk, inner = counts[:, 0].astype(float), counts[:, 1:].astype(float)
        values = {
            "macs": 30 * trunk + 2 * trunk * (inner @ AREAS),
            "params": trunk * (1 + 2 * inner.sum(1)),
            "layers": 2.0 + 2 * (inner > 0).sum(1),
        }
        return {m: values[m] for m in metrics}


def blocks(scores: Sequence[np.ndarray], *, trunk_stays: bool = False) -> Space:
    """Return the space of this network's widths; all three blocks may leave."""
    trunk = np.array([TRUNK]) if trunk_stays else np.arange(1, TRUNK + 1)
    allowed = [trunk, *(np.arange(1, n + 1) for n in INNER)]
    return Space(scores, allowed, [(1,), (2,), (3,)], PlanCosts(Blocks(), Blocks.group_ids))


def drawn(seed: int) -> list[np.ndarray]:
    """Return random scores."""
    rng = np.random.default_rng(seed)
    return [rng.random(n) for n in (TRUNK, *INNER)]
