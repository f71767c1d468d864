"""Network slimming: the penalty, the threshold, and what is silent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook import Budget, Scope, shrink
from billhook.allocate.families.global_ import Global
from billhook.errors import BudgetError, InputError
from billhook.fuse import channel_selection
from billhook.graph import apply, capture, make_plan, verify
from billhook.methods import Problem
from billhook.methods.network_slimming import NetworkSlimming
from billhook.train import CallbackDriver, FitConfig
from tests.networks import batches, build

TRAINING = FitConfig(epochs=6, lr=0.02, precision="32-true")


def _step(driver: CallbackDriver, inputs: Tensor, targets: Tensor, *, weight: float = 1.0) -> None:
    driver.before_step(inputs, targets)
    driver.optimizer.zero_grad()
    (weight * nn.functional.cross_entropy(driver.model(inputs), targets)).backward()
    driver.after_backward()
    driver.optimizer.step()
    driver.after_step()


def _driver(model: nn.Module, inputs: Tensor, method: NetworkSlimming, steps: int) -> CallbackDriver:
    callback = method.callback(Problem(model, inputs, Budget(macs=0.5), round_to=1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return CallbackDriver([callback], model, optimizer, total_steps=steps)


def test_the_penalty_moves_every_scale_by_lr_times_strength_towards_zero() -> None:
    model, inputs = build("residual")
    with torch.no_grad():
        model.bn1.weight[:3] = torch.tensor([0.7, -0.7, 0.0])
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    driver = _driver(model, inputs, NetworkSlimming(strength=0.01), steps=100)
    _step(driver, *batches("residual", 1)[0], weight=0.0)
    for name, parameter in model.named_parameters():
        scale = name.startswith("bn") and name.endswith("weight")
        expected = before[name] - 0.1 * 0.01 * before[name].sign() if scale else before[name]
        assert torch.allclose(parameter, expected, atol=1e-7), name
    assert model.bn1.weight[2] == 0


def test_auto_takes_half_off_a_scale_of_one_whatever_the_length_of_the_run() -> None:
    """With rate 0.05 · ½ (mean of a cosine) and momentum 0.9, a quarter of the strength per step."""
    for steps in (20, 200):
        model, inputs = build("residual")
        driver = _driver(model, inputs, NetworkSlimming(), steps=steps)
        _step(driver, *batches("residual", 1)[0], weight=0.0)
        gradient = model.bn1.weight.grad
        assert torch.allclose(gradient * 0.25 * steps, torch.full((24,), 0.5))


def test_after_the_penalty_phase_there_is_no_penalty() -> None:
    model, inputs = build("residual")
    driver = _driver(model, inputs, NetworkSlimming(until=0.5), steps=4)
    for number in range(3):
        _step(driver, *batches("residual", 1)[0], weight=0.0)
        assert bool(model.bn1.weight.grad.any()) == (number < 2)


def test_one_threshold_for_all_scales() -> None:
    """By hand: γ {.1, .2, .3} and {.01, .02, .9}; half of all gives thr = sorted[3] = .2; kept are > thr."""
    scales = [np.array([0.1, 0.2, 0.3]), np.array([0.01, 0.02, 0.9])]
    pooled = np.sort(np.concatenate(scales))
    above = sum(int((s > pooled[3]).sum()) for s in scales)
    allocator = NetworkSlimming(allocator_options={"floor": 0}).allocating()
    assert allocator == Global(normalize="none", floor=0)
    assert allocator.wanted(scales, np.array([above / 6])).tolist() == [[1, 1]]
    assert allocator.wanted(scales, np.array([1 / 6])).tolist() == [
        [0, 1]
    ]  # a layer collapses without a floor
    assert NetworkSlimming().allocating().wanted(scales, np.array([1 / 6]))[0, 0] > 0


def test_planted_copies_with_small_scales_are_what_leaves() -> None:
    model, inputs = build("residual")
    planted = [1, 4, 7, 9, 12, 13, 17, 20]
    with torch.no_grad():
        for norm in (model.bn, model.bn1, model.bn2, model.bn3, model.bn4):
            norm.weight.fill_(1.0)
        model.bn1.weight[planted] = 1e-3
    outcome = NetworkSlimming().run(
        Problem(
            model,
            inputs,
            Budget(macs=0.72),
            Scope(include=("inner1",)),
            data=batches("residual"),
            training=FitConfig(steps=4, lr=1e-6, precision="32-true"),
            round_to=1,
        )
    )
    removed = np.flatnonzero(~outcome.plan.keep["inner1"]).tolist()
    assert removed == planted


@pytest.mark.parametrize("options", [{}, {"passes": 1}, {"until": 1.0}, {"passes": 2, "until": 1}])
def test_what_leaves_is_silent(options: dict) -> None:
    model, inputs = build("residual")
    problem = Problem(model, inputs, Budget(macs=0.5), data=batches("residual"), training=TRAINING)
    outcome = NetworkSlimming(**options).run(problem)
    assert outcome.plan.removed
    assert verify(outcome.model, outcome.plan, inputs).exact
    assert torch.allclose(outcome.small().eval()(inputs), outcome.model.eval()(inputs), atol=1e-5)


def test_scales_and_shifts_of_zero_mask_like_removal() -> None:
    model, inputs = build("residual")
    problem = Problem(model, inputs, Budget(macs=0.5), data=batches("residual"), training=TRAINING)
    keep = NetworkSlimming().run(problem).plan.keep["inner1"]
    plan = make_plan(capture(model, inputs), {"inner1": keep})
    small = apply(model, plan).eval()
    assert not torch.allclose(small(inputs), model(inputs), atol=1e-3)
    gone = torch.from_numpy(~keep)
    with torch.no_grad():  # nobody has silenced the readers here: the norm alone does it
        model.bn1.weight[gone] = 0
        model.bn1.bias[gone] = 0
    assert torch.allclose(small(inputs), model(inputs), atol=1e-5)


def test_several_passes_come_closer_step_by_step() -> None:
    model, inputs = build("residual")
    driver = _driver(model, inputs, NetworkSlimming(passes=3, until=0.75), steps=8)
    gone = []
    for _ in range(8):
        _step(driver, *batches("residual", 1)[0])
        gone.append(sum(int(g.sum()) for g in driver.callbacks[0].memory["gone"].values()))
    assert gone[:2] == [0, 0]
    assert gone[2] == gone[3] < gone[4] == gone[5] < gone[6] == gone[7]
    assert sum(driver.finish()[0].removed.values()) == gone[-1]


def test_init_sets_the_scales_in_scope() -> None:
    model, inputs = build("residual")
    callback = NetworkSlimming(init=0.5).callback(
        Problem(model, inputs, Budget(macs=0.9), Scope(include=("inner1",)), round_to=1)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    driver = CallbackDriver([callback], model, optimizer, total_steps=9)
    driver.before_step(None, None)
    assert (model.bn1.weight == 0.5).all()
    assert not (model.bn2.weight == 0.5).any()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plain", "group.*'conv3' pass through none; leave them whole with scope=Scope"),
        ("flatten", "no group in scope passes through one; use a method .* method='l2' or method='gator'"),
    ],
)
def test_groups_without_scales_are_named_before_training(name: str, message: str) -> None:
    model, inputs = build(name)

    class Untouched:
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> object:
            raise AssertionError("training has begun")

    with pytest.raises(InputError, match=message):
        shrink(model, inputs, method="network_slimming", budget=Budget(macs=0.5), data=Untouched())


def test_a_scope_makes_it_usable() -> None:
    model, inputs = build("plain")
    outcome = shrink(
        model,
        inputs,
        method="network_slimming",
        budget=Budget(macs=0.6),
        scope=Scope(exclude=("conv3",)),
        data=batches("plain"),
        training=TRAINING,
    )
    assert set(outcome.plan.removed) <= {"conv1", "conv2"}


def test_a_budget_out_of_reach_is_known_before_training() -> None:
    model, inputs = build("residual")
    callback = NetworkSlimming().callback(Problem(model, inputs, Budget(macs=1e-5)))
    driver = CallbackDriver([callback], model, torch.optim.SGD(model.parameters(), lr=0.1), total_steps=4)
    with pytest.raises(BudgetError, match="cannot be met"):
        driver.before_step(None, None)


class PreActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1, self.conv1 = nn.BatchNorm2d(16), nn.Conv2d(16, 12, 3, padding=1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(12), nn.Conv2d(12, 16, 3, padding=1, bias=False)
        self.bn, self.head = nn.BatchNorm2d(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv2(self.bn2(self.conv1(self.bn1(x).relu())).relu())
        return self.head(self.bn(x).relu().mean((2, 3)))


def test_a_pre_activation_block_with_selection_masks_like_removal() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, 8, 8)
    model = channel_selection(PreActivation().eval(), inputs)
    with torch.no_grad():
        model.bn1.norm.weight[[0, 3, 5]] = 0.01
    data = [(torch.randn(4, 3, 8, 8), torch.randint(5, (4,))) for _ in range(4)]
    problem = Problem(model, inputs, Budget(macs=0.7), data=data, training=TRAINING, round_to=1)
    outcome = NetworkSlimming().run(problem)
    gone = np.flatnonzero(~outcome.plan.keep["bn1.select"])
    assert {0, 3, 5} <= set(gone.tolist())
    assert not capture(model, inputs).groups["stem"].prunable
    plan = make_plan(capture(model, inputs), {"bn1.select": outcome.plan.keep["bn1.select"]})
    small = apply(model, plan).eval()
    assert not torch.allclose(small(inputs), model(inputs), atol=1e-3)
    with torch.no_grad():  # the readers are whole: the norm alone silences what the selection leaves out
        model.bn1.norm.weight[gone] = 0
        model.bn1.norm.bias[gone] = 0
        assert torch.allclose(small(inputs), model(inputs), atol=1e-5)
