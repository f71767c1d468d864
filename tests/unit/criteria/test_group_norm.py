from __future__ import annotations

import pytest
import torch

from billhook.criteria import ScoreContext, score
from billhook.criteria.group_norm import GroupNorm
from billhook.criteria.l2 import L2
from billhook.errors import InputError
from tests.hand_made import group, member

TENSORS = {
    "a.weight": torch.tensor([[3.0, 0.0], [1.0, 2.0]]),
    "a.bias": torch.tensor([100.0, 100.0]),
    "bn.weight": torch.tensor([2.0, 1.0]),
    "bn.bias": torch.tensor([100.0, 100.0]),
    "bn.running_var": torch.tensor([100.0, 100.0]),
    "table": torch.tensor([100, 100]),
    "b.weight": torch.tensor([[4.0, 2.0], [1.0, 1.0]]),
}
BLOCK = group(
    "a",
    2,
    member("a.weight", 0, "out", 2),
    member("a.bias", 0, "out", 2),
    *(member(name, 0, "through", 2) for name in ("bn.weight", "bn.bias", "bn.running_var", "table")),
    member("b.weight", 1, "in", 2),
)


def test_filters_scales_and_readers_are_averaged() -> None:
    # 9 + 4 + 17 and 5 + 1 + 5, over three slices.
    scores = GroupNorm(normalize="none").score(BLOCK, ScoreContext(TENSORS))
    torch.testing.assert_close(scores, torch.tensor([10.0, 11 / 3]))


def test_the_mean_of_a_group_is_one() -> None:
    scores = GroupNorm().score(BLOCK, ScoreContext(TENSORS))
    torch.testing.assert_close(scores, torch.tensor([30.0, 11.0]) / 20.5)


def test_a_unit_of_several_channels_has_the_norm_of_all_of_them() -> None:
    wide = group("a", 1, member("a.weight", 0, "out", 1, width=2))
    assert GroupNorm(normalize="none").score(wide, ScoreContext(TENSORS)).tolist() == [14.0]


def test_unlike_l2_a_unit_that_is_only_read_has_a_score() -> None:
    dead = {**TENSORS, "a.weight": torch.tensor([[0.0, 0.0], [1.0, 2.0]])}
    assert GroupNorm().score(BLOCK, ScoreContext(dead))[0] > 0
    assert L2().score(BLOCK, ScoreContext(dead))[0] == 0


def test_a_group_of_zeros_scores_zero() -> None:
    zeros = {name: torch.zeros_like(t) for name, t in TENSORS.items()}
    assert GroupNorm().score(BLOCK, ScoreContext(zeros)).tolist() == [0.0, 0.0]


def test_groups_without_weights_are_named() -> None:
    bare = group("norm", 2, member("0.bias", 0, "through", 2))
    with pytest.raises(InputError, match="group 'norm': it has no weights"):
        score(GroupNorm(), torch.nn.Sequential(torch.nn.Linear(2, 2)), [bare])
