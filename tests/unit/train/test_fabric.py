from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import Tensor

from billhook.errors import BillhookError, InputError, MissingExtraError
from billhook.graph.plan import Plan
from billhook.train import Callback, StepContext, evaluate, fit
from billhook.train.fabric import Engine
from tests.unit.train.tiny import EXACT, StopAt, TinyBatches, assert_same_weights, tiny_net

TWO = replace(EXACT, epochs=1, devices=2, strategy="ddp-fork", checkpoint_steps=2, channels_last=False)


class Ranks(Callback):
    """Remembers the batches of its process; decides a plan."""

    def __init__(self) -> None:
        self.sums: list[float] = []

    def before_step(self, context: StepContext) -> None:
        self.sums.append(context.inputs.sum().item())

    def finish(self, context: StepContext) -> Plan:
        return Plan({"g": np.array([True, False])}, "fingerprint")

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sums = state["sums"]


def plain_net() -> torch.nn.Sequential:
    """Return a network without batch norm, which would see half a batch in each process."""
    net = tiny_net()
    net[1] = torch.nn.Identity()
    return net


def broken(outputs: Tensor, targets: Tensor) -> Tensor:
    raise RuntimeError("a loss that fails")


def test_without_fabric_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(MissingExtraError, match=r'training needs .*pip install "billhook\[train\]"'):
        fit(tiny_net(), TinyBatches(), config=EXACT)


@pytest.mark.skipif(torch.cuda.is_available(), reason="hardware: there is a GPU")
def test_a_device_that_is_not_there_is_explained() -> None:
    with pytest.raises(InputError, match="cannot train with accelerator='cuda', devices=1"):
        fit(tiny_net(), TinyBatches(), config=replace(EXACT, accelerator="cuda"))


def test_two_processes_train_like_one_with_twice_the_batch(tmp_path: Path) -> None:
    model, alone, batches, ranks = plain_net(), plain_net(), TinyBatches(count=5), Ranks()
    result = fit(model, batches, config=TWO, callbacks=[ranks], checkpoint_dir=tmp_path, validate=batches)

    parts = list(batches.epoch(0))
    pairs = [tuple(torch.cat(pair) for pair in zip(*parts[i : i + 2], strict=True)) for i in (0, 2)]
    one = fit(alone, pairs, config=replace(TWO, devices=1, strategy="auto"))
    for (name, x), y in zip(model.state_dict().items(), alone.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y, msg=lambda m, name=name: f"{name}: {m}")
    assert ranks.sums == [parts[0][0].sum().item(), parts[2][0].sum().item()]  # rank 0 has every other batch
    assert result.plan is not None
    assert (result.steps, len(result.history)) == (2, 1)
    assert result.loss == pytest.approx(one.loss, rel=1e-5)
    assert result.metrics["accuracy"] == evaluate(model, batches).accuracy


def test_two_processes_that_were_interrupted_go_on(tmp_path: Path) -> None:
    def train(stop: int | None, directory: Path, resume: bool = False) -> torch.nn.Module:
        model = tiny_net(9 if resume else 0, dropout=0.3)
        config = replace(TWO, epochs=3)
        fit(
            model,
            TinyBatches(),
            config=config,
            callbacks=[StopAt(stop, ArithmeticError)],
            checkpoint_dir=directory,
            resume=resume,
        )
        return model

    whole = train(None, tmp_path / "a")
    with pytest.raises(BillhookError, match="a training process failed: ArithmeticError"):
        train(4, tmp_path / "b")
    assert_same_weights(whole, train(None, tmp_path / "b", resume=True))


@pytest.mark.slow
def test_spawned_processes_leave_the_outcome_in_the_model_of_the_caller() -> None:
    model, forked = plain_net(), plain_net()
    ranks = Ranks()
    result = fit(model, TinyBatches(), config=replace(TWO, strategy="auto"), callbacks=[ranks])
    fit(forked, TinyBatches(), config=TWO)
    assert_same_weights(model, forked)
    assert not model[0].weight.is_shared()
    assert len(ranks.sums) == result.steps == 2


def test_an_error_in_a_process_ends_all_of_them() -> None:
    model = tiny_net()
    with pytest.raises(BillhookError, match="a training process failed: RuntimeError: a loss that fails"):
        fit(model, TinyBatches(), config=TWO, loss=broken)
    assert_same_weights(model, tiny_net())


def test_more_processes_than_batches_are_an_error() -> None:
    with pytest.raises(BillhookError, match=r"an epoch of 1 batches is too short for 2 process\(es\)"):
        fit(tiny_net(), TinyBatches(count=1), config=TWO)


def test_scaled_gradients_are_in_true_scale_again() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    half = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[half])
    fabric.launch()
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    engine = Engine(fabric)
    network, step = engine.setup(model, optimizer)
    before = model.bias.item()
    engine.backward(network(torch.ones(3, 2)).sum(), optimizer)
    assert model.bias.grad.item() == 3.0
    step()
    assert model.bias.item() == pytest.approx(before - 1.5)
    state = engine.precision_state()
    assert state["scale"] == 1024.0
    engine.load_precision_state({**state, "scale": 512.0})
    assert engine.precision_state()["scale"] == 512.0
