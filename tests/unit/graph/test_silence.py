"""Silence: the original network in the original shapes, reading zeros where channels are gone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook.errors import InputError, PlanError
from billhook.graph import apply, capture, make_plan, silence, verify
from tests.networks import build
from tests.oracle import outputs, random_plan, randomize


def test_a_whole_plan_changes_nothing() -> None:
    model, x = build("residual")
    plan = make_plan(capture(model, x), {})
    torch.testing.assert_close(silence(model, plan, x)(x), model(x))


def test_silence_by_hand() -> None:
    model = randomize(nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2)))
    x = torch.randn(5, 3)
    plan = make_plan(capture(model, x), {"0": [True, False, True, False]})
    hidden = model[0](x).sigmoid()
    hidden[:, [1, 3]] = 0
    torch.testing.assert_close(silence(model, plan, x)(x), model[2](hidden))


def test_the_model_is_untouched() -> None:
    model, x = build("depthwise_squeeze")
    model.train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    silence(model, random_plan(capture(model, x)), x)(x)
    assert model.training
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


class Preparing(nn.Module):
    """Changes its own input and a buffer in place."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 6), nn.Linear(6, 2)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5).div_(0.2)
        self.calls.add_(1)
        return self.two(self.one(x).relu_())


def test_inputs_and_buffers_that_forward_changes_are_not_changed_by_checks() -> None:
    model, x = randomize(Preparing()), torch.randn(2, 3)
    before = x.clone()
    plan = random_plan(capture(model, x))
    silence(model, plan, x)(x)
    small = apply(model, plan)
    assert verify(model, plan, x, small=small).exact
    assert torch.equal(x, before)
    assert (model.calls.item(), small.calls.item()) == (0, 0)
    assert type(small) is Preparing


def test_what_if_a_group_went() -> None:
    model, x = build("residual")
    graph = capture(model, x)
    first = np.arange(24) < 1
    effect = {
        name: (outputs(silence(model, make_plan(graph, {name: first}), x), x)[0] - model(x))
        .abs()
        .max()
        .item()
        for name in ("inner1",)
    }
    assert effect["inner1"] > 1e-3


def test_other_inputs_of_the_same_form_may_be_given() -> None:
    model, x = build("residual")
    plan = random_plan(capture(model, x))
    larger = torch.randn(3, 3, 12, 12)
    small = apply(model, plan)
    torch.testing.assert_close(silence(model, plan, larger)(larger), small(larger), rtol=1e-4, atol=1e-5)


def test_inputs_of_another_form_are_refused() -> None:
    model, x = build("residual")
    silenced = silence(model, random_plan(capture(model, x)), x)
    with pytest.raises(InputError, match="expected inputs structured like"):
        silenced(x, x)


def test_a_foreign_plan_is_refused() -> None:
    model, x = build("residual")
    with pytest.raises(PlanError, match="made for another network"):
        silence(build("plain")[0], random_plan(capture(model, x)), x)
