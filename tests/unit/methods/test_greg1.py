from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook.allocate.budget import Budget
from billhook.graph import Plan, apply
from billhook.graph.groups import Member
from billhook.methods import Problem
from billhook.methods._growing import Growing, Ramp, penalise_, ramp_over, unit_means
from billhook.methods.greg1 import Greg1
from billhook.train import CallbackDriver, FitConfig
from tests.networks import batches, build


def hand_net(sizes: list[float], seed: int = 0) -> nn.Sequential:
    """Return a perceptron without biases whose hidden units have the given mean |w|."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(4, len(sizes), bias=False), nn.ReLU(), nn.Linear(len(sizes), 3, bias=False)
    )
    with torch.no_grad():
        signs = torch.randn(len(sizes), 4).sign()
        model[0].weight.copy_(signs * torch.tensor(sizes)[:, None])
    return model


def train(
    method: Growing,
    model: nn.Module,
    steps: int,
    *,
    lr: float,
    decay: float = 0.0,
    task: float = 1.0,
    budget: float = 0.5,
) -> tuple[Plan, Tensor]:
    """Train plainly, with the loss times `task`; return the plan and the logits just before it was made."""
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    problem = Problem(model, x[:1], Budget(macs=budget), round_to=1)
    driver = CallbackDriver([method.callback(problem)], model, optimizer, total_steps=steps)
    with driver.attached():
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr * (1 - decay * step / steps)
            optimizer.zero_grad()
            driver.before_step(x, None)
            target = x[:, :3].abs()
            driver.add_terms(task * (model(x) - target).square().mean()).backward()
            optimizer.step()
    logits = model(x).detach()
    (plan,) = driver.finish()
    assert plan is not None
    return plan, logits


def test_a_penalty_moves_a_quadratic_to_its_new_minimum() -> None:
    """L = ½ (w − w*)ᵀ H (w − w*) with H = diag(1, 10) and λ = 0.5: w / w* = 0.6667 and 0.9524."""
    curvature, start = torch.tensor([1.0, 10.0]), torch.tensor([2.0, -3.0])
    w = nn.Parameter(start.clone())
    member = Member("w", 0, "out", np.array([[0], [1]]))
    for _ in range(400):
        w.grad = (curvature * (w - start)).detach()
        penalise_({"w": w}, [member], torch.tensor([0.5, 0.5]), limit=math.inf)
        w.data -= 0.1 * w.grad
    torch.testing.assert_close(w.detach() / start, torch.tensor([1 / 1.5, 10 / 10.5]), rtol=1e-4, atol=0)


def test_without_a_task_what_leaves_decays_by_the_product_and_what_stays_is_untouched() -> None:
    model = hand_net([1.0, 0.2, 0.8, 0.4])
    before = model[0].weight.detach().clone()
    plan, _ = train(Greg1(top=2.0, delta=0.1, every=3), model, 30, lr=0.05, task=0.0)
    product = math.prod(1 - 0.05 * min(2.0, 0.1 * (1 + step // 3)) for step in range(30))
    expected = before * torch.tensor([1.0, product, 1.0, product])[:, None]
    torch.testing.assert_close(model[0].weight.detach(), expected, rtol=1e-5, atol=0)
    assert plan.keep["0"].tolist() == [True, False, True, False]
    assert plan.made_by["remaining"] == pytest.approx(product * 0.3 / 0.9, rel=1e-5)


def test_removing_what_the_penalty_has_left_changes_nothing() -> None:
    model = hand_net([1.0, 0.2, 0.8, 0.4, 0.9, 0.3])
    plan, logits = train(Greg1(top=500.0), model, 600, lr=0.05, decay=1.0)
    assert plan.made_by["remaining"] < 1e-3
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    assert (apply(model, plan)(x) - logits).abs().max() < 1e-3
    assert (model(x) - logits).abs().max() < 1e-3


def test_at_least_one_unit_stays() -> None:
    """A rate of 0.9 or more on ten units removes nine."""
    plan, _ = train(Greg1(), hand_net([0.1 * n for n in range(1, 11)]), 2, lr=0.05, budget=0.1)
    assert plan.keep["0"].nonzero()[0].tolist() == [9]


def test_the_published_constants_are_options() -> None:
    ramp = ramp_over(0, 50_000, 1.0, every=5, delta=1e-4)
    assert [ramp.at(s) for s in (0, 4, 5)] == pytest.approx([1e-4, 1e-4, 2e-4])
    assert ramp.at(49_990) < 1.0
    assert ramp.at(49_995) == pytest.approx(1.0)
    assert ramp.at(90_000) == 1.0


@pytest.mark.parametrize("steps", [1, 7, 100, 50_000])
def test_a_ramp_fills_the_steps_it_is_given(steps: int) -> None:
    ramp = ramp_over(10, steps, 3.0, low=1.0, every="auto", delta="auto")
    assert ramp.at(9) == 0
    assert 1.0 < ramp.at(10) <= 3.0
    assert ramp.at(10 + steps) == pytest.approx(3.0)
    assert ramp == Ramp(**vars(ramp))


def test_the_penalty_is_the_published_one_unless_the_run_is_short() -> None:
    tops = []
    for epochs in (3, 3000):
        model, x = build("plain")
        problem = Problem(model, x, Budget(macs=0.5), data=batches("plain"))
        callback = Greg1().callback(problem)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        CallbackDriver([callback], model, optimizer, total_steps=8 * epochs).before_step(x, None)
        tops.append(callback.memory["ramps"]["leave"]["top"])
    assert tops[0] > 20
    assert tops[1] == 1.0


def test_a_step_never_overshoots_zero() -> None:
    w = nn.Parameter(torch.ones(2, 3))
    w.grad = torch.zeros(2, 3)
    penalise_({"w": w}, [Member("w", 0, "out", np.array([[0], [1]]))], torch.tensor([1e6, 3.0]), limit=20.0)
    assert w.grad[:, 0].tolist() == [20.0, 3.0]


def test_sizes_are_means_over_all_layers_that_make_a_unit() -> None:
    model = hand_net([1.0, 3.0])
    problem = Problem(model, torch.ones(1, 4), Budget(macs=0.5))
    tensors = {n: p.detach() for n, p in model.named_parameters()}
    assert unit_means(tensors, problem.groups[0]).tolist() == [1.0, 3.0]


def test_norms_and_biases_are_not_penalised() -> None:
    model, x = build("plain")
    problem = Problem(model, x, Budget(macs=0.5))
    callback = Greg1().callback(problem)
    penalised = {m.tensor for members in callback.penalised.values() for m in members}
    assert penalised == {"conv1.weight", "conv2.weight", "conv3.weight"}


def test_a_run_that_is_too_short_says_what_was_left(caplog: pytest.LogCaptureFixture) -> None:
    model, x = build("plain")
    training = FitConfig(epochs=1, lr=1e-3, precision="32-true")
    problem = Problem(model, x, Budget(macs=0.5), data=batches("plain"), training=training)
    with caplog.at_level(logging.WARNING, "billhook"):
        outcome = Greg1(top=1.0).run(problem)
    assert outcome.plan.made_by["remaining"] > 0.5
    assert "the penalty had too few steps" in caplog.text


def test_with_batch_norm_a_few_hundred_steps_leave_next_to_nothing() -> None:
    model, x = build("residual")
    training = FitConfig(epochs=50, lr=0.05, schedule="cosine", precision="32-true")
    problem = Problem(model, x, Budget(macs=0.5), data=batches("residual", 4), training=training)
    assert Greg1().run(problem).plan.made_by["remaining"] < 0.03
