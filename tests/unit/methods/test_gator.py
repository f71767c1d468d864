from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import billhook
from billhook import Budget, Scope, shrink
from billhook.graph import capture
from billhook.methods import Problem
from billhook.methods._gates import (
    draw,
    gate_gradient,
    logistic_noise,
    logit,
    mean_slope,
    steps_to_close,
    unit_costs,
)
from billhook.methods.gator import Gator, GatorCallback
from billhook.models import build as zoo
from billhook.train import CallbackDriver, FitConfig
from tests.networks import batches, build


class Bottleneck(nn.Module):
    def __init__(self, wide: int, narrow: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide, narrow, 1, stride, bias=False)  # the stride of the first ResNets
        self.conv2 = nn.Conv2d(narrow, narrow, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(narrow, 4 * narrow, 1, bias=False)
        self.project = None
        if wide != 4 * narrow or stride > 1:
            self.project = nn.Conv2d(wide, 4 * narrow, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(self.conv2(self.conv1(x).relu()).relu())
        return (y + (x if self.project is None else self.project(x))).relu()


def resnet_50() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    wide = 64
    for stage, (blocks, narrow) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)]):
        for block in range(blocks):
            layers.append(Bottleneck(wide, narrow, 2 if stage and not block else 1))
            wide = 4 * narrow
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(wide, 1000, bias=False))


def test_costs_are_those_of_the_published_tables() -> None:
    """T = 76,848 and 25,502,912 (ResNet-50), 122,800 and 850,864 (ResNet-56 for CIFAR)."""
    costs = capture(resnet_50().eval(), torch.zeros(1, 3, 224, 224)).costs
    head = 2048 * 1000
    assert (costs.cost().macs - head) / 224**2 == 76_848
    assert costs.cost().params == 25_502_912
    # The initial loss: a gate pays for each convolution that it is a side of; the stem's input has none.
    shares = unit_costs(costs, np.array(costs.sizes), "macs")
    shares[costs.group_ids.index(_last(costs.group_ids))] -= 1000  # the head is not counted there
    weights = shares / (224**2 * 76_848)
    opened = [0.995 * size for size in costs.sizes]
    assert weights @ np.array(opened) == pytest.approx(1.9595, abs=1e-4)

    small = capture(zoo("resnet-56", shortcut="B").eval(), torch.zeros(1, 3, 32, 32)).costs
    assert (small.cost().macs - 640) / 32**2 == 122_800
    layers = zoo("resnet-56", shortcut="B")
    assert sum(p.numel() for p in layers.parameters() if p.dim() == 4) == 850_864


def _last(ids: tuple[str, ...]) -> str:
    """Return the highway of the last stage, which the head reads."""
    return [name for name in ids if name.endswith("project") or name.endswith("conv3")][-1]


def test_a_unit_costs_what_the_other_side_of_its_layers_is_wide() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1))
    costs = capture(model.eval(), torch.zeros(1, 3, 3, 3)).costs
    assert costs.group_ids == ("0", "1")
    assert unit_costs(costs, np.array([8, 6]), "macs").tolist() == [27 + 6, 8 + 2]
    assert unit_costs(costs, np.array([4, 6]), "macs").tolist() == [27 + 6, 4 + 2]  # a pruned side is cheaper


def test_a_gate_is_open_with_probability_sigma_and_slopes_are_straight_through() -> None:
    theta = torch.tensor([-1.0, 0.0, 2.0])
    many = theta.repeat_interleave(100_000)
    gates, slopes = draw(many, logistic_noise(len(many), torch.Generator().manual_seed(0)))
    frequency = gates.view(3, -1).mean(1)
    torch.testing.assert_close(frequency, theta.sigmoid(), atol=5e-3, rtol=0)
    # ∂/∂θ of the expected soft gate, by finite differences over the same noise.
    noise = logistic_noise(100_000, torch.Generator().manual_seed(1))
    ahead, behind = ((theta[:, None] + noise + e).sigmoid().mean(1) for e in (1e-2, -1e-2))
    torch.testing.assert_close(slopes.view(3, -1).mean(1), (ahead - behind) / 2e-2, atol=3e-3, rtol=0)
    torch.testing.assert_close(mean_slope(theta).float(), slopes.view(3, -1).mean(1), atol=3e-3, rtol=0)


def test_without_a_task_all_gates_close_at_the_same_rate_whatever_they_cost() -> None:
    slope = torch.full((3,), 0.1)
    share = torch.tensor([1e-4, 1e-2, 1.0])
    step = gate_gradient(slope, torch.zeros(3), share, 2.0) / share  # the gate's rate is ρ / w
    torch.testing.assert_close(step, torch.full((3,), 0.2))


def test_steps_to_close_agrees_with_a_simulation() -> None:
    theta, rate, steps = torch.full((4000,), logit(0.9)), 0.05, 0
    generator = torch.Generator().manual_seed(0)
    while theta.mean() > 0:
        _, slope = draw(theta, logistic_noise(4000, generator))
        theta -= rate * slope
        steps += 1
    assert steps * rate == pytest.approx(steps_to_close(logit(0.9)), rel=0.05)


def _callback(model: nn.Module, x: Tensor, macs: float = 0.6, **options: object) -> GatorCallback:
    problem = Problem(model, x, Budget(macs=macs), round_to=1)
    callback = Gator(**options).callback(problem)  # type: ignore[arg-type]
    assert isinstance(callback, GatorCallback)
    return callback


def test_a_unit_that_nobody_needs_leaves_first_and_masked_equals_sliced() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten())
    model.append(nn.Linear(5 * 16, 4))
    with torch.no_grad():
        model[2].weight[:, 2] = 0  # nobody reads channel 2
        model[5].weight *= 20  # sure of its answers, so that every other channel is needed
    x = torch.randn(64, 3, 8, 8)
    y = model(x).argmax(1)
    data = [(x[i : i + 16], y[i : i + 16]) for i in range(0, 64, 16)]
    outcome = shrink(
        model,
        x[:1],
        method="gator",
        budget=Budget(macs=0.9),
        scope=Scope(include=("0",)),
        round_to=1,
        data=data,
        training=FitConfig(epochs=15, lr=1e-6, schedule="constant", precision="32-true"),
    )
    assert not outcome.plan.keep["0"][2]
    with torch.no_grad():  # units that leave are silent in the network that is handed back
        torch.testing.assert_close(outcome.model.eval()(x), outcome.small().eval()(x), rtol=1e-5, atol=1e-6)


def test_a_highway_channel_can_leave() -> None:
    model, x = build("residual")
    callback = _callback(model, x)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    driver = CallbackDriver([callback], model, optimizer, total_steps=4)
    for inputs, targets in batches("residual", 1):
        driver.before_step(inputs, targets)
        nn.functional.cross_entropy(model(inputs), targets).backward()
        driver.after_backward()
        driver.after_step()
    at = [g.id for g in callback.groups].index("stem")
    start = sum(callback.sizes[:at])
    callback.memory["theta"][start + 3] = -5.0
    (plan,) = driver.finish()
    assert plan is not None
    assert not plan.keep["stem"][3]
    assert billhook.verify(model, plan, x).exact


def test_a_residual_branch_leaves_when_all_its_gates_are_shut() -> None:
    model, x = build("residual")
    data = batches("residual", 4)
    callback = _callback(model, x, macs=0.17)  # the branch is 83 % of the network
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    driver = CallbackDriver([callback], model, optimizer, total_steps=8)
    _step(driver, model, *data[0])
    for group, part in callback._split(callback.memory["theta"]).items():
        callback.memory["theta"][_slice(callback, group)] = -5.0 if group == "inner1" else part + 5
    _step(driver, model, *data[1])
    (plan,) = driver.finish()
    assert plan is not None
    assert plan.counts["inner1"] == 0
    small = billhook.apply(model, plan)
    assert not any(n.startswith(("inner1", "outer1")) for n, _ in small.named_parameters())
    assert billhook.verify(model, plan, x).exact
    kept = Gator(branches=False).callback(Problem(*build("residual"), Budget(macs=0.6), round_to=1))
    assert not kept.method.branches  # type: ignore[attr-defined]


def test_surviving_units_can_be_gated_again() -> None:
    model, x = build("residual")
    config = FitConfig(epochs=3, lr=0.02, precision="32-true")
    costs = [billhook.cost(model, x).macs]
    for _ in range(2):
        outcome = shrink(
            model,
            x,
            method="gator",
            budget=Budget(macs=0.7),
            data=batches("residual", 6),
            round_to=1,
            training=config,
        )
        model = outcome.small()
        costs.append(billhook.cost(model, x).macs)
    assert all(after <= 0.7 * before for before, after in pairwise(costs))


def test_the_strength_follows_the_budget(tmp_path: Path) -> None:
    model, x = build("residual")
    callback = _callback(model, x, until=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    driver = CallbackDriver([callback], model, optimizer, total_steps=100)
    for _ in range(3):
        _step(driver, model, *batches("residual", 1)[0])
    assert callback.memory["strength"] > 1  # nothing is shut yet, and the way to the budget has begun


def test_gates_are_taken_off_before_the_optimiser_steps() -> None:
    model, x = build("residual")
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    callback = _callback(model, x, probability=0.6)
    driver = CallbackDriver([callback], model, torch.optim.SGD(model.parameters(), lr=0.0), total_steps=10)
    inputs, targets = batches("residual", 1)[0]
    driver.before_step(inputs, targets)
    assert any(not torch.equal(p, before[n]) for n, p in model.named_parameters())
    nn.functional.cross_entropy(model(inputs), targets).backward()
    driver.after_backward()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_a_latency_share_is_measured_for_every_group(monkeypatch: pytest.MonkeyPatch) -> None:
    from billhook.methods import gator

    monkeypatch.setattr(gator, "latency_factors", lambda problem: [2.0] * len(problem.groups))
    model, x = build("residual")
    callback = _callback(model, x, cost="latency")
    plain = _callback(model, x, cost="macs")
    for one in (callback, plain):
        one.memory["open"] = torch.ones(sum(one.sizes), dtype=torch.bool)
        one.memory["charged"] = one._charged()
    torch.testing.assert_close(callback._shares(), 2 * plain._shares())


def test_logit_is_the_inverse_of_sigma() -> None:
    assert 1 / (1 + math.exp(-logit(0.995))) == pytest.approx(0.995)


def _step(driver: CallbackDriver, model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    driver.before_step(inputs, targets)
    driver.optimizer.zero_grad()
    driver.add_terms(nn.functional.cross_entropy(model(inputs), targets)).backward()
    driver.after_backward()
    driver.optimizer.step()
    driver.after_step()


def _slice(callback: GatorCallback, group: str) -> slice:
    at = [g.id for g in callback.groups].index(group)
    start = sum(callback.sizes[:at])
    return slice(start, start + callback.sizes[at])


def test_a_step_that_overflowed_leaves_the_gates_alone() -> None:
    model, x = build("residual")
    callback = _callback(model, x)
    driver = CallbackDriver([callback], model, torch.optim.SGD(model.parameters(), lr=0.01), total_steps=20)
    _step(driver, model, *batches("residual", 1)[0])
    before = callback.memory["theta"].clone()
    inputs, targets = batches("residual", 1)[0]
    driver.before_step(inputs, targets)
    (nn.functional.cross_entropy(model(inputs), targets) * torch.inf).backward()
    driver.after_backward()
    assert torch.equal(callback.memory["theta"], before)


def test_gates_before_a_frozen_layer_are_defended_too() -> None:
    model, x = build("residual")
    model.outer1.requires_grad_(False)  # type: ignore[union-attr]
    callback = _callback(model, x)
    trained = [p for p in model.parameters() if p.requires_grad]
    driver = CallbackDriver([callback], model, torch.optim.SGD(trained, lr=0.01), total_steps=20)
    inputs, targets = batches("residual", 1)[0]
    driver.before_step(inputs, targets)
    nn.functional.cross_entropy(model(inputs), targets).backward()
    assert callback._masks is not None
    slopes = callback._masks.take_off()
    assert slopes["inner1"].abs().sum() > 0
    assert not model.outer1.weight.requires_grad  # type: ignore[union-attr]
    assert model.outer1.weight.grad is None  # type: ignore[union-attr]


def test_a_step_without_a_backward_pass_does_no_harm() -> None:
    model, x = build("residual")
    weight = model.outer1.weight  # type: ignore[union-attr]
    before = weight.detach().clone()
    callback = _callback(model, x, probability=0.6)
    driver = CallbackDriver([callback], model, torch.optim.SGD(model.parameters(), lr=0.0), total_steps=20)
    inputs, targets = batches("residual", 1)[0]
    driver.before_step(inputs, targets)  # and the loop goes on with the next batch
    _step(driver, model, inputs, targets)
    assert torch.equal(weight, before)


def test_the_cost_follows_the_line_to_the_budget() -> None:
    model, x = build("residual")
    callback = _callback(model, x, until=1.0)
    driver = CallbackDriver([callback], model, torch.optim.SGD(model.parameters(), lr=0.01), total_steps=60)
    data = batches("residual", 6)
    for step in range(30):
        _step(driver, model, *data[step % 6])
    assert not callback.memory["plan"]
    assert 0.9 < callback._excess(0.5) < 1.25  # half-way: near the line, not at the budget
