from __future__ import annotations

import torch

from billhook.criteria import ScoreContext
from billhook.criteria.l2 import L2
from tests.hand_made import group, member

# Two units; the first is made by (3, 0) and read by 4, the second is made by (1, 2) and read by 2.
TENSORS = {"a.weight": torch.tensor([[3.0, 0.0], [1.0, 2.0]]), "b.weight": torch.tensor([[4.0, 2.0]])}
PAIR = group("a", 2, member("a.weight", 0, "out", 2), member("b.weight", 1, "in", 2))


def test_the_norm_runs_over_all_coupled_weights() -> None:
    torch.testing.assert_close(L2().score(PAIR, ScoreContext(TENSORS)), torch.tensor([5.0, 3.0]))


def test_only_producers_count_if_asked() -> None:
    scores = L2(members="out").score(PAIR, ScoreContext(TENSORS))
    torch.testing.assert_close(scores, torch.tensor([3.0, 5.0**0.5]))


def test_the_indices_of_a_wide_unit_count_together() -> None:
    flattened = group("a", 2, member("b.weight", 1, "in", 2, width=2))
    scores = L2().score(flattened, ScoreContext({"b.weight": torch.tensor([[3.0, 4.0, 0.0, 1.0]])}))
    assert scores.tolist() == [5.0, 1.0]


def test_a_unit_that_nobody_makes_or_nobody_reads_scores_zero() -> None:
    tensors = {
        "a.weight": torch.tensor([[0.0], [9.0], [1.0]]),
        "b.weight": torch.tensor([[9.0, 0.0, 1.0]]),
    }
    trio = group("a", 3, member("a.weight", 0, "out", 3), member("b.weight", 1, "in", 3))
    scores = L2().score(trio, ScoreContext(tensors)).tolist()
    assert scores[:2] == [0.0, 0.0]
    assert scores[2] > 0


def test_half_precision_weights_do_not_underflow() -> None:
    tiny = {name: torch.full_like(t, 1e-4).half() for name, t in TENSORS.items()}
    assert (L2().score(PAIR, ScoreContext(tiny)) > 1e-4).all()
