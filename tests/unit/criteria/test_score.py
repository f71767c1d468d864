from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from billhook.criteria import Criterion, ScoreContext, criteria, score
from billhook.criteria.l2 import L2
from billhook.errors import InputError, NameNotFoundError
from billhook.graph import capture
from billhook.graph.groups import ChannelGroup
from tests.networks import build


def test_every_group_gets_float_scores_on_the_cpu() -> None:
    model, inputs = build("residual")
    groups = capture(model, inputs).groups.prunable
    scores = score(L2(), model.to(torch.bfloat16), groups)
    assert list(scores) == [g.id for g in groups]
    assert all(scores[g.id].shape == (g.size,) and scores[g.id].dtype == torch.float32 for g in groups)


def test_broken_weights_are_named() -> None:
    model, inputs = build("plain")
    groups = capture(model, inputs).groups.prunable
    with torch.no_grad():
        model.conv2.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(
        InputError, match=r"'l2' gives scores that are not finite for group 'conv1'; .*'conv2.weight'"
    ):
        score(L2(), model, groups)


def test_a_long_list_of_unsuitable_groups_is_cut() -> None:
    @dataclass(frozen=True)
    class Never(Criterion):
        def unsupported(self, group: ChannelGroup, context: ScoreContext) -> str | None:
            return "no"

        def score(self, group: ChannelGroup, context: ScoreContext) -> Tensor:
            raise AssertionError

    class Deep(nn.Sequential):
        pass

    model = Deep(*(nn.Linear(4, 4) for _ in range(9)))
    groups = capture(model, torch.ones(1, 4)).groups.prunable
    with pytest.raises(InputError, match="'4': no and 3 more"):
        score(Never(), model, groups)


def test_an_unknown_criterion_lists_close_names() -> None:
    with pytest.raises(NameNotFoundError, match="unknown criterion 'bnscale'; did you mean 'bn_scale'"):
        criteria.get("bnscale")
