"""Soft filter pruning: what is zeroed, that it comes back, and how many there are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook import Budget
from billhook.errors import NameNotFoundError
from billhook.graph import verify
from billhook.methods import Problem
from billhook.methods._asymptotic import SCHEDULES, count_at, fraction_at, round_after
from billhook.methods.soft import Soft, SoftCallback
from billhook.train import CallbackDriver, FitConfig
from tests.networks import batches, build

TRAINING = FitConfig(epochs=4, lr=0.05, precision="32-true")


def _driver(model: nn.Module, inputs: Tensor, soft: Soft, steps: int) -> tuple[CallbackDriver, SoftCallback]:
    callback = soft.callback(Problem(model, inputs, Budget(macs=0.5), round_to=1))
    assert isinstance(callback, SoftCallback)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return CallbackDriver([callback], model, optimizer, total_steps=steps), callback


def _step(driver: CallbackDriver, inputs: Tensor, targets: Tensor) -> None:
    driver.before_step(inputs, targets)
    driver.optimizer.zero_grad()
    nn.functional.cross_entropy(driver.model(inputs), targets).backward()
    driver.optimizer.step()
    driver.after_step()


def _silent(weight: Tensor) -> int:
    """Return how many input channels are read with zeros only."""
    return int((weight.detach().abs().amax((0, 2, 3)) == 0).sum())


@pytest.mark.parametrize("zeroed", ["readers", "filters"])
def test_zeroed_units_come_back_in_the_next_step(zeroed: str) -> None:
    model, inputs = build("plain")
    model.train()
    with torch.no_grad():
        model.bn1.bias.fill_(0.3)  # a shift below zero would hold a zeroed filter where ReLU has no slope
    driver, callback = _driver(model, inputs, Soft(rounds=2, zeroed=zeroed), steps=4)
    (x, y), *_ = batches("plain", 1)
    _step(driver, x, y)
    _step(driver, x, y)  # a round
    gone = 16 - callback.decided.counts["conv1"]
    zero = _silent(model.conv2.weight) if zeroed == "readers" else _silent(model.conv1.weight.transpose(0, 1))
    assert zero == gone > 0
    _step(driver, x, y)
    zero = _silent(model.conv2.weight) if zeroed == "readers" else _silent(model.conv1.weight.transpose(0, 1))
    assert zero == 0


def test_a_zeroed_unit_is_silent() -> None:
    model, inputs = build("residual")
    driver, _ = _driver(model, inputs, Soft(rounds=1), steps=2)
    (x, y), *_ = batches("residual", 1)
    _step(driver, x, y)
    plan = driver.finish()[0]
    assert plan is not None
    with torch.no_grad():
        before = model(inputs)
        for name, keep in plan.keep.items():
            maker = model.get_submodule(name)
            maker.weight[torch.from_numpy(~keep)] += 1.0  # nobody hears it
    assert torch.allclose(model(inputs), before, atol=1e-5)


def test_the_zeroed_filters_are_those_of_the_smallest_norm() -> None:
    model, inputs = build("plain")
    norms = model.conv1.weight.detach().flatten(1).norm(dim=1)
    outcome = Soft(options={"members": "out"}, rounds=1).run(
        Problem(
            model,
            inputs,
            Budget(macs=0.5),
            data=batches("plain"),
            round_to=1,
            training=FitConfig(steps=1, lr=1e-9, precision="32-true"),
        )
    )
    count = outcome.plan.counts["conv1"]
    assert set(np.flatnonzero(outcome.plan.keep["conv1"])) == set(norms.argsort()[-count:].tolist())


@pytest.mark.parametrize("criterion", ["l2", "fpgm", "taylor"])
def test_removal_changes_nothing(criterion: str) -> None:
    model, inputs = build("depthwise_squeeze")
    data = batches("depthwise_squeeze")
    problem = Problem(model, inputs, Budget(macs=0.5), data=data, training=TRAINING)
    outcome = Soft(criterion=criterion).run(problem)
    assert outcome.plan.removed
    assert verify(outcome.model, outcome.plan, inputs).exact
    assert torch.allclose(outcome.small().eval()(inputs), outcome.model.eval()(inputs), atol=1e-5)


def test_the_rate_follows_its_schedule() -> None:
    """By hand: N = 16, K = 8; ASFP has taken 3/4 of the 8 after an eighth of the run."""
    assert [count_at(16, 8, fraction_at(t, "asymptotic")) for t in (0, 1 / 8, 1)] == [16, 10, 8]
    assert fraction_at(1 / 8, "asymptotic") == pytest.approx(0.75, abs=1e-5)
    assert [count_at(16, 8, fraction_at(t, "linear")) for t in (0, 0.3, 0.5, 1)] == [16, 14, 12, 8]
    assert fraction_at(0.5, "cosine") == pytest.approx(0.5)
    assert fraction_at(0.5, "polynomial") == 0.875
    assert fraction_at(0.01, "constant") == 1
    for schedule in SCHEDULES:
        course = [fraction_at(i / 50, schedule) for i in range(51)]
        assert course == sorted(course)
        assert course[-1] == 1
        assert schedule == "constant" or course[0] == 0


def test_what_is_out_is_rounded_down() -> None:
    """int(rate · N) filters leave, and fractions that are whole up to rounding count as whole."""
    assert count_at(10, 3, 0.5) == 10 - math.floor(3.5)
    assert count_at(10, 0, 0.1 + 0.2) == 7


def test_rounds_are_spread_evenly_and_the_last_comes_at_the_end() -> None:
    assert [step for step in range(12) if round_after(step, 12, 4)] == [2, 5, 8]
    assert [step for step in range(3) if round_after(step, 3, 10)] == [0, 1]
    assert not any(round_after(step, 9, 1) for step in range(9))


def test_unknown_names_are_found_before_training() -> None:
    with pytest.raises(NameNotFoundError, match="unknown criterion 'l3'"):
        Soft(criterion="l3")
