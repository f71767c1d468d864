from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from billhook import Budget, Plan, apply, pruning_callback, shrink
from billhook.errors import InputError
from billhook.methods.iterative import Iterative, IterativeCallback, progress_at
from billhook.train import CallbackDriver, FitConfig
from tests.networks import batches, build
from tests.residual import residual

CONFIG = FitConfig(epochs=5, lr=0.02, precision="32-true")


@pytest.mark.parametrize("schedule", ["linear", "cubic"])
def test_the_budget_is_approached_from_nothing_to_all(schedule: str) -> None:
    values = [progress_at(t / 10, schedule) for t in range(11)]
    assert values[0] == 0
    assert values[-1] == 1
    assert values == sorted(values)


def test_the_cubic_schedule_takes_most_away_early() -> None:
    assert progress_at(0.5, "cubic") == 0.875
    assert progress_at(0.5, "linear") == 0.5


def test_units_leave_in_rounds_and_never_come_back() -> None:
    model, x = build("residual")
    callback = pruning_callback(
        model, x, method="iterative", budget=Budget(macs=0.4), options={"rounds": 4}, round_to=1
    )
    assert isinstance(callback, IterativeCallback)
    data = batches("residual", 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    driver = CallbackDriver([callback], model, optimizer, total_steps=20)
    gone: list[int] = []
    sets: list[dict[str, torch.Tensor]] = []
    for step in range(20):
        inputs, targets = data[step % 5]
        driver.before_step(inputs, targets)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        driver.after_backward()
        optimizer.step()
        driver.after_step()
        sets.append({n: g.clone() for n, g in callback.memory["gone"].items()})
        gone.append(sum(int(g.sum()) for g in sets[-1].values()))
    assert 2 < len(set(gone)) <= 4  # four rounds; one may find nothing to take
    assert gone[-1] == gone[14]  # after 70 % of the steps nothing more leaves
    for earlier, later in pairwise(sets):
        assert all((later[n] | ~earlier[n]).all() for n in earlier)
    silent = callback.memory["gone"]["inner1"]
    assert torch.count_nonzero(model.outer1.weight[:, silent]) == 0  # type: ignore[union-attr,index]
    (plan,) = driver.finish()
    assert isinstance(plan, Plan)
    stays = torch.from_numpy(plan.keep["inner1"])
    assert not (stays & silent).any() or int(stays.sum()) > int((~silent).sum())


def test_any_criterion_will_do_and_a_wrong_one_is_refused_at_once() -> None:
    model, x = build("residual")
    outcome = shrink(
        model,
        x,
        method="iterative",
        budget=Budget(macs=0.5),
        options={"criterion": "taylor", "options": {"batches": 2}, "rounds": 3},
        data=batches("residual", 4),
        training=CONFIG,
    )
    assert outcome.plan.removed
    with pytest.raises(InputError, match="unknown criterion"):
        Iterative(criterion="tailor")


@pytest.mark.parametrize("method", ["iterative", "network_slimming"])
def test_a_branch_that_has_left_adds_nothing_and_stays_away(method: str) -> None:
    model, x = residual("basic")
    options = {
        "allocator_options": {"overhead": 1e6, "branches": True},
        ("rounds" if method == "iterative" else "passes"): 3,
    }
    callback = pruning_callback(
        model, x, method=method, allocator="efficient", budget=Budget(macs=0.3), options=options, round_to=1
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    driver = CallbackDriver([callback], model, optimizer, total_steps=10)
    generator = torch.Generator().manual_seed(0)
    left: list[set[str]] = []
    model.train()
    for _ in range(10):
        inputs, targets = torch.randn(4, 3, 8, 8, generator=generator), torch.arange(4)
        driver.before_step(inputs, targets)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        driver.after_backward()
        optimizer.step()
        driver.after_step()
        gone = callback.memory["gone"]
        left.append({b.id for b in callback.branches if all(gone[g].all() for g in b.groups)})  # type: ignore[attr-defined]
    assert left[-1]
    assert all(earlier <= later for earlier, later in pairwise(left))
    (plan,) = driver.finish()
    assert isinstance(plan, Plan)
    assert {b.id for b in callback.branches if not plan.keep[b.own[0]].any()} == left[-1]  # type: ignore[attr-defined]
    # What was trained last is what is removed: the branch's shift is not missed.
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(apply(model, plan)(x), model(x), atol=1e-4, rtol=1e-4)
