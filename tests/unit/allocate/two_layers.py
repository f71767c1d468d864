"""Costs of a made-up network of two layers: wide and cheap, narrow and dear."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.hand_made import group, member


class TwoLayers:
    """macs = 100·a·b, params = a + 10·b, bytes = 4·params for a, b units kept; a frozen third column."""

    group_ids = ("a", "out", "b")
    sizes = np.array([64, 5, 32])

    def __init__(self) -> None:
        self.calls = 0

    def evaluate(self, counts: np.ndarray, metrics: Sequence[str]) -> dict[str, np.ndarray]:
        self.calls += 1
        assert (counts[:, 1] == 5).all(), "a group out of scope was touched"
        a, b = counts[:, 0].astype(float), counts[:, 2].astype(float)
        values = {"macs": 100 * a * b, "params": a + 10 * b, "bytes": 4 * (a + 10 * b)}
        return {m: values[m] for m in metrics}


GROUPS = [group("a", 64, member("a.weight", 0, "out", 64)), group("b", 32, member("b.weight", 0, "out", 32))]
SCORES = {"a": np.arange(64.0), "b": np.arange(32.0)[::-1].copy()}
