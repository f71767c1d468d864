from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from billhook.errors import DataError, InputError
from billhook.graph.plan import Plan
from billhook.train import Callback, CallbackDriver, FitConfig, StepContext, evaluate, fit
from billhook.train.losses import cross_entropy
from billhook.train.rng import rng_state
from tests.unit.train.tiny import EXACT, NoisyDecay, StopAt, TinyBatches, assert_same_weights, tiny_net


class Decides(Callback):
    """Decides a plan at the end."""

    def __init__(self) -> None:
        self.plan = Plan({"g": np.array([True, False])}, "fingerprint")

    def finish(self, context: StepContext) -> Plan:
        return self.plan


class Holder:
    """Result object of a network, as transformers have it."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class Keyword(nn.Module):
    """Network with a dict of inputs and a result object."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny_net()

    def forward(self, *, image: Tensor, gain: Tensor) -> Holder:
        return Holder(self.net(image * gain))


def test_training_learns_and_reports() -> None:
    model, batches = tiny_net(), TinyBatches(count=8)
    result = fit(model, batches, config=replace(EXACT, epochs=6), validate=batches)
    found = evaluate(model, batches)
    assert found.accuracy > 0.9
    assert result.metrics == {"accuracy": found.accuracy, "loss": pytest.approx(found.loss)}
    assert result.steps == 48
    assert [record.epoch for record in result.history] == list(range(6))
    assert result.history[-1].loss == result.loss < result.history[0].loss
    assert (result.plan, result.plans, result.resumed_from, result.precision) == (None, (), None, "32-true")


def test_the_same_seed_gives_the_same_network_and_the_callers_state_stays() -> None:
    one, other, third = (tiny_net(dropout=0.5) for _ in range(3))
    before = rng_state()
    fit(one, TinyBatches(), config=EXACT)
    assert torch.equal(before["torch"], rng_state()["torch"])
    torch.rand(5)
    fit(other, TinyBatches(), config=EXACT)
    fit(third, TinyBatches(), config=replace(EXACT, seed=1))
    assert_same_weights(one, other)
    assert not torch.equal(one[0].weight, third[0].weight)


def test_mode_layout_and_gradients_are_as_before() -> None:
    model, teacher = tiny_net(), tiny_net(1)
    model[1].eval()
    kept = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    strides = [p.stride() for p in model.parameters()]
    fit(model, TinyBatches(), config=EXACT, teacher=teacher)
    assert [p.stride() for p in model.parameters()] == strides
    assert [m.training for m in model.modules()] == [True, True, False, *[True] * 6]
    assert teacher.training
    assert all(torch.equal(kept[name], tensor) for name, tensor in teacher.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_steps_override_epochs_and_cut_the_last_one() -> None:
    result = fit(tiny_net(), TinyBatches(count=5), config=replace(EXACT, steps=7))
    assert [record.steps for record in result.history] == [5, 2]


@pytest.mark.parametrize("precision", ["bf16-mixed", "auto"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_other_arithmetic_and_layout_learn_too(precision: str, channels_last: bool) -> None:
    config = replace(EXACT, epochs=5, precision=precision, channels_last=channels_last)
    model, batches = tiny_net(), TinyBatches(count=8)
    result = fit(model, batches, config=config)
    assert model[0].weight.dtype == torch.float32
    assert result.precision in ("bf16-mixed", "32-true")
    assert evaluate(model, batches, precision=precision).accuracy > 0.85


def test_plain_sgd_is_the_one_of_torch() -> None:
    config = FitConfig(
        epochs=1, lr=0.1, schedule="constant", precision="32-true", label_smoothing=0.0, channels_last=False
    )
    ours, theirs = tiny_net(), tiny_net()
    fit(ours, TinyBatches(), config=replace(config, clip=0.5))
    matrices = [p for p in theirs.parameters() if p.dim() > 1]
    vectors = [p for p in theirs.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 5e-4}, {"params": vectors}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    for inputs, targets in TinyBatches().epoch(0):
        optimizer.zero_grad()
        F.cross_entropy(theirs(inputs), targets).backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        optimizer.step()
    assert_same_weights(ours, theirs)


def test_the_averaged_weights_are_validated_and_kept() -> None:
    model = tiny_net()
    seen: list[Tensor] = []

    def validate(model: nn.Module) -> dict[str, float]:
        assert not model.training
        seen.append(model.get_parameter("0.weight").clone())
        torch.rand(7)  # must not change the training
        return {"figure": 1}

    result = fit(model, TinyBatches(), config=replace(EXACT, ema=0.9), validate=validate)
    plain = tiny_net()
    fit(plain, TinyBatches(), config=EXACT)
    assert torch.equal(seen[-1], model[0].weight)
    assert not torch.equal(plain[0].weight, model[0].weight)
    assert result.metrics == {"figure": 1.0}


def test_distillation_alone_makes_the_student_follow_the_teacher() -> None:
    teacher, batches = tiny_net(1), TinyBatches(count=8)
    fit(teacher, batches, config=replace(EXACT, epochs=4))
    student = tiny_net(2)
    nonsense = [(inputs, torch.zeros_like(targets)) for inputs, targets in batches.epoch(0)]
    fit(student, nonsense, config=replace(EXACT, epochs=6, distill=1.0), teacher=teacher)
    assert evaluate(student, batches).accuracy > 0.85


def test_dicts_of_inputs_and_result_objects_are_understood() -> None:
    batches = [({"image": i, "gain": torch.ones(1)}, t) for i, t in TinyBatches(count=8).epoch(0)]
    model, teacher = Keyword(), Keyword()
    config = replace(EXACT, epochs=5)
    with pytest.raises(InputError, match="returns a Holder, not a tensor"):
        fit(model, batches, config=config)
    result = fit(model, batches, config=config, output=lambda r: r.logits, teacher=teacher, validate=batches)
    assert result.metrics["accuracy"] > 0.5
    fit(model, batches, config=config, loss=lambda r, t: cross_entropy(r.logits, t))
    assert evaluate(model, batches, output=lambda r: r.logits).accuracy > 0.85


def test_a_plan_that_a_callback_decides_is_returned() -> None:
    decides = Decides()
    result = fit(tiny_net(), TinyBatches(), config=EXACT, callbacks=[Callback(), decides])
    assert result.plan == decides.plan
    assert result.plans == (None, decides.plan)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": lambda o, t: (o.argmax(1) == t).float()}, r"scalar tensor, not a tensor of shape \[8\]"),
        ({"loss": lambda o, t: 1.0}, "scalar tensor, not a float"),
        ({"resume": True}, "needs checkpoint_dir"),
        ({"callbacks": [print]}, "must be an instance"),
    ],
)
def test_arguments_that_do_not_fit_are_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit(tiny_net(), TinyBatches(), config=EXACT, **options)


def test_the_model_cannot_be_its_own_teacher() -> None:
    model = tiny_net()
    with pytest.raises(InputError, match="the teacher is the model itself"):
        fit(model, TinyBatches(), config=EXACT, teacher=model)


def test_an_epoch_that_is_shorter_than_promised_is_an_error() -> None:
    batches = TinyBatches(count=4)
    batches.__class__ = type("Short", (TinyBatches,), {"__len__": lambda self: 6})
    with pytest.raises(DataError, match="epoch 0 ended after 4 of 6 batches"):
        fit(tiny_net(), batches, config=EXACT)


def test_labels_beyond_the_last_layer_are_explained() -> None:
    batches = [(inputs, targets + 1) for inputs, targets in TinyBatches().epoch(0)]
    with pytest.raises(InputError, match="classes 1 to 3, but the model has 3 outputs"):
        fit(tiny_net(), batches, config=EXACT)


def test_the_number_of_log_lines_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="billhook")
    fit(tiny_net(), TinyBatches(count=1, size=2), config=replace(EXACT, epochs=120))
    lines = [r.message for r in caplog.records if r.name == "billhook"]
    assert 40 <= len(lines) <= 51
    assert lines[-1].startswith("epoch 120/120: loss ")
    caplog.clear()
    fit(tiny_net(), TinyBatches(count=1, size=2), config=EXACT, progress=False)
    assert not caplog.records


def test_a_loop_of_ones_own_drives_the_same_callbacks() -> None:
    mine, ours, callback, same = tiny_net(), tiny_net(), NoisyDecay(), NoisyDecay()
    config = replace(EXACT, schedule="constant", label_smoothing=0.0, weight_decay=0.0, channels_last=False)
    torch.manual_seed(3)
    state = torch.get_rng_state()

    optimizer = torch.optim.SGD(mine.parameters(), lr=config.lr, momentum=0.9, nesterov=True)
    batches = TinyBatches()
    driver = CallbackDriver([callback], mine, optimizer, total_steps=10)
    with driver.attached():
        for epoch in range(2):
            for inputs, targets in batches.epoch(epoch):
                driver.before_step(inputs, targets)
                loss = driver.add_terms(F.cross_entropy(mine(inputs), targets))
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            driver.after_epoch()

    fit(ours, batches, config=config, callbacks=[SameNoise(state), same])
    assert_same_weights(mine, ours)
    assert callback.calls == same.calls
    assert driver.finish() == (None,)


class SameNoise(Callback):
    """Sets the generator at the first step, so that two loops draw the same numbers."""

    def __init__(self, state: Tensor) -> None:
        self.state = state

    def before_step(self, context: StepContext) -> None:
        if context.step == 0:
            torch.set_rng_state(self.state)


def test_fit_uses_the_adapter_for_plain_lists(tmp_path: Path) -> None:
    batches = list(TinyBatches().epoch(0))
    one, other = tiny_net(), tiny_net()
    fit(one, batches, config=EXACT)
    config = replace(EXACT, checkpoint_steps=3)
    with pytest.raises(KeyboardInterrupt):
        fit(other, batches, config=config, callbacks=[StopAt(7)], checkpoint_dir=tmp_path)
    fit(other, batches, config=config, callbacks=[StopAt(None)], checkpoint_dir=tmp_path, resume=True)
    assert_same_weights(one, other)
