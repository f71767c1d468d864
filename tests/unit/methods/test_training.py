from __future__ import annotations

import pytest
import torch
from torch import nn

import billhook
from billhook import Budget, pruning_callback, shrink
from billhook.errors import BudgetError, DivergedError, InputError, ScopeError
from billhook.train import CallbackDriver, FitConfig, fit
from tests.networks import batches, build

CONFIG = FitConfig(epochs=4, lr=0.02, precision="32-true", schedule="constant", label_smoothing=0.0)


def test_billhooks_loop_and_a_hand_written_one_decide_the_same() -> None:
    budget = Budget(macs=0.6)
    data = batches("plain", 4)
    model, x = build("plain")
    config = FitConfig(
        epochs=4,
        lr=0.02,
        precision="32-true",
        schedule="constant",
        label_smoothing=0.0,
        momentum=0.0,
        nesterov=False,
        weight_decay=0.0,
        channels_last=False,
    )
    ours = shrink(model, x, method="iterative", budget=budget, data=data, training=config)

    callback = pruning_callback(model, x, method="iterative", budget=budget)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    driver = CallbackDriver([callback], model, optimizer, total_steps=16)
    model.train()
    with driver.attached():
        for _ in range(4):
            for inputs, targets in data:
                driver.before_step(inputs, targets)
                loss = driver.add_terms(nn.functional.cross_entropy(model(inputs), targets))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            driver.after_epoch()
    (plan,) = driver.finish()
    assert plan is not None
    assert {n: k.tolist() for n, k in plan.keep.items()} == {n: k.tolist() for n, k in ours.plan.keep.items()}
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, ours.model.state_dict()[name])


def test_the_original_stays_and_the_outcome_has_the_new_weights() -> None:
    model, x = build("plain")
    before = {n: t.clone() for n, t in model.state_dict().items()}
    outcome = shrink(
        model, x, method="iterative", budget=Budget(macs=0.6), data=batches("plain", 4), training=CONFIG
    )
    assert outcome.model is not model
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert not torch.equal(outcome.model.state_dict()["conv1.weight"], before["conv1.weight"])
    assert len(outcome.history) == 4
    assert billhook.verify(outcome.model, outcome.plan, x).exact


def test_a_loss_that_becomes_nan_says_at_which_step(tmp_path: object) -> None:
    model, x = build("plain")
    data = batches("plain", 4)
    data[2][0][0, 0, 0, 0] = float("nan")
    with pytest.raises(DivergedError, match="step 2") as caught:
        shrink(
            model,
            x,
            method="gator",
            budget=Budget(macs=0.6),
            data=data,
            training=FitConfig(epochs=2, lr=0.01, precision="32-true", log_every=1),
        )
    assert caught.value.good_step == 2
    assert all(torch.isfinite(t).all() for t in model.state_dict().values())


def test_without_data_a_method_that_trains_says_so() -> None:
    model, x = build("plain")
    with pytest.raises(InputError, match="'gator' trains while it decides; give data="):
        shrink(model, x, method="gator", budget=Budget(macs=0.6))


def test_a_method_that_only_looks_has_no_callback() -> None:
    model, x = build("plain")
    with pytest.raises(InputError, match=r"'l2' does not act during training.*billhook\.prune"):
        pruning_callback(model, x, method="l2", budget=Budget(macs=0.6))


def test_a_callback_belongs_to_one_network() -> None:
    model, x = build("plain")
    callback = pruning_callback(model, x, method="gator", budget=Budget(macs=0.6))
    other, _ = build("plain")
    with pytest.raises(InputError, match="made for another network"):
        fit(other, batches("plain"), config=CONFIG, callbacks=[callback], progress=False)
    with pytest.raises(InputError, match="not seen a single training step"):
        CallbackDriver([callback], model, torch.optim.SGD(model.parameters(), lr=0.1), total_steps=1).finish()


def test_gates_on_a_frozen_group_are_refused_with_the_reason() -> None:
    model, x = build("plain")
    with pytest.raises(ScopeError, match=r"group 'head' is frozen \(model output"):
        shrink(
            model,
            x,
            method="gator",
            budget=Budget(macs=0.6),
            scope=billhook.Scope(include=("head",)),
            data=batches("plain"),
            training=CONFIG,
        )


def test_a_budget_below_one_channel_per_group_names_what_can_be_reached() -> None:
    model, x = build("plain")
    with pytest.raises(BudgetError, match="cannot be met") as caught:
        shrink(
            model,
            x,
            method="gator",
            budget=Budget(macs=1e-5),
            data=batches("plain"),
            training=CONFIG,
            round_to=1,
        )
    assert caught.value.reachable["macs"] > 0
