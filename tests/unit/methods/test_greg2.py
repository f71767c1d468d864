from __future__ import annotations

import pytest
import torch
from torch import nn

from billhook.allocate.budget import Budget
from billhook.methods import Problem
from billhook.methods._training import TrainingMethod
from billhook.methods.greg1 import Greg1
from billhook.methods.greg2 import Greg2, Greg2Callback
from billhook.train import CallbackDriver, FitConfig
from tests.networks import batches, build

START = torch.tensor([1.0, 0.9, 1.1, 0.8])
CURVATURE = torch.tensor([1.0, 10.0, 1.0, 10.0])  # units 1 and 3 are smaller, but matter more


def chosen(method: TrainingMethod, steps: int = 300) -> tuple[list[int], nn.Module]:
    """Train four units, each one weight on a quadratic; return those that stay."""
    model = nn.Sequential(nn.Linear(1, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(START[:, None])
    x = torch.ones(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    problem = Problem(model, x, Budget(macs=0.5), round_to=1)
    driver = CallbackDriver([method.callback(problem)], model, optimizer, total_steps=steps)
    with driver.attached():
        for _ in range(steps):
            optimizer.zero_grad()
            driver.before_step(x, None)
            loss = 0.5 * (CURVATURE * (model[0].weight[:, 0] - START).square()).sum()
            driver.add_terms(loss + 0 * model(x).sum()).backward()
            optimizer.step()
    (plan,) = driver.finish()
    assert plan is not None
    return plan.keep["0"].nonzero()[0].tolist(), model


def test_units_that_give_way_leave_even_if_they_are_larger() -> None:
    """At λ = 0.5 they have shrunk to 1 / (1 + 0.5 / h): 0.667, 0.857, 0.733 and 0.762."""
    stays, model = chosen(Greg2(pick=0.5, pick_top=0.5, top=5.0, recover=0))
    assert stays == [1, 3]
    torch.testing.assert_close(model[0].weight[[1, 3], 0].detach(), START[[1, 3]], rtol=1e-3, atol=0)
    assert chosen(Greg1(top=5.0))[0] == [0, 2]  # by their size before


def _callback(method: Greg2, optimizer: type[torch.optim.Optimizer], steps: int = 100) -> Greg2Callback:
    model, x = build("plain")
    problem = Problem(model, x, Budget(macs=0.5), data=batches("plain"))
    callback = method.callback(problem)
    assert isinstance(callback, Greg2Callback)
    made = optimizer(model.parameters(), lr=0.05, weight_decay=5e-4)  # type: ignore[call-arg]
    driver = CallbackDriver([callback], model, made, total_steps=steps)
    for step in range(steps):
        driver.before_step(x, None)
        context = driver._context()
        values = callback.penalties(context)["conv1"]
        if step < 10:
            assert values.unique().numel() == 1, "all alike before the choice"
        else:
            assert callback.memory["picked"]
            assert values.unique().numel() == 2
    callback.last = values  # type: ignore[attr-defined]
    return callback


def test_the_phases_and_their_penalties() -> None:
    callback = _callback(Greg2(pick=0.1, pick_top=0.01, top=1.0), torch.optim.SGD)
    last, keep = callback.last, callback.memory["keep"]["conv1"]  # type: ignore[attr-defined]
    assert last[keep].tolist() == pytest.approx([-5e-4] * int(keep.sum()))
    assert last[~keep].tolist() == pytest.approx([1.0] * int((~keep).sum()))
    assert callback.ramp("pick").at(9) == pytest.approx(0.01)
    assert callback.ramp("leave").at(10) == pytest.approx(0.01 + 0.99 / 50)


def test_where_decay_is_decoupled_there_is_nothing_to_take_back() -> None:
    callback = _callback(Greg2(pick=0.1), torch.optim.AdamW)
    keep = callback.memory["keep"]["conv1"]
    assert callback.last[keep].abs().max() == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("epochs", [1, 20])
def test_widths_are_those_of_the_budget(epochs: int) -> None:
    model, x = build("residual")
    training = FitConfig(epochs=epochs, lr=0.05, schedule="cosine", precision="32-true")
    problem = Problem(model, x, Budget(macs=0.5), data=batches("residual", 1), training=training)
    outcome = Greg2().run(problem)
    assert outcome.plan.counts == Greg1().run(problem).plan.counts
    assert problem.graph.costs.cost(outcome.plan).macs <= 0.5 * problem.graph.costs.cost(None).macs
