from __future__ import annotations

import pytest
import torch

from billhook.criteria import ScoreContext, score
from billhook.criteria.bn_scale import BnScale
from billhook.errors import InputError
from billhook.graph import capture
from tests.hand_made import group, member
from tests.networks import build

TENSORS = {
    "a.weight": torch.ones(2, 1),
    "bn1.weight": torch.tensor([-0.5, 1.0]),
    "bn1.running_var": torch.ones(2),
    "bn2.weight": torch.tensor([2.5, 0.0]),
    "bn2.running_var": torch.ones(2),
    "ln.weight": torch.tensor([100.0, 100.0]),
}
TRUNK = group("a", 2, *(member(name, 0, "through", 2) for name in TENSORS))


def test_scales_of_all_batch_norms_are_averaged_and_nothing_else_counts() -> None:
    assert BnScale().score(TRUNK, ScoreContext(TENSORS)).tolist() == [1.5, 0.5]


def test_the_largest_scale_counts_if_asked() -> None:
    assert BnScale(reduce="max").score(TRUNK, ScoreContext(TENSORS)).tolist() == [2.5, 1.0]


def test_a_unit_of_several_channels_has_several_scales() -> None:
    wide = group("a", 1, member("bn1.weight", 0, "through", 1, width=2))
    assert BnScale().score(wide, ScoreContext(TENSORS)).tolist() == [1.5]


def test_groups_without_a_batch_norm_are_named() -> None:
    model, inputs = build("plain")
    groups = capture(model, inputs).groups.prunable
    with pytest.raises(
        InputError, match=r"'bn_scale' cannot judge group 'conv3': it passes through no batch norm.*exclude"
    ):
        score(BnScale(), model, groups)
