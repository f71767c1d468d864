from __future__ import annotations

import torch

from billhook.criteria import ScoreContext
from billhook.criteria.l1 import L1
from tests.hand_made import group, member


def test_absolute_weights_are_summed_over_all_coupled_layers() -> None:
    tensors = {"a.weight": torch.tensor([[3.0, -1.0], [1.0, 2.0]]), "b.weight": torch.tensor([[-4.0, 2.0]])}
    pair = group("a", 2, member("a.weight", 0, "out", 2), member("b.weight", 1, "in", 2))
    assert L1().score(pair, ScoreContext(tensors)).tolist() == [8.0, 5.0]
    assert L1(members="out").score(pair, ScoreContext(tensors)).tolist() == [4.0, 3.0]
