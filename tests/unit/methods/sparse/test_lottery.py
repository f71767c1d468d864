from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from billhook.errors import InputError
from billhook.graph.structure import impose_
from billhook.methods.sparse.lottery import Lottery
from billhook.sparse.holding import holds
from billhook.train import Callback, FitConfig, StepContext, fit
from billhook.train.holding import HoldPatterns
from billhook.train.weights import copy_of, write
from tests.networks import batches, build
from tests.unit.methods.sparse.problems import masks, problem, same

TRAINING = FitConfig(epochs=5, lr=0.05, precision="32-true", schedule="cosine")  # 10 steps
NAMES = ("conv1.weight", "conv2.weight", "conv3.weight", "head.weight")


def _posed(sparsity: float = 0.84, **changes: Any) -> Any:
    model, inputs = build("plain")
    settings = {"data": batches("plain"), "training": TRAINING, "allocation": "global"}
    return problem(model, sparsity, inputs=inputs, **settings | changes)


class _Keep(Callback):
    """Copies the weights before one step."""

    def __init__(self, step: int) -> None:
        self.step, self.weights = step, {}

    def before_step(self, context: StepContext) -> None:
        if context.step == self.step:
            self.weights = copy_of(context.model)


@pytest.mark.parametrize(("rewind", "step"), [(0.0, 0), (0.39, 3)])
def test_rounds_worked_out_by_hand(rewind: float, step: int) -> None:
    posed = _posed(loss=nn.functional.cross_entropy)
    found = Lottery(rounds=2, rewind=rewind).run(posed)

    model = copy.deepcopy(posed.model)
    keep, structures = _Keep(step), {}
    for left in (0.4, 0.16, None):  # 0.16^(1/2), 0.16
        callbacks = [HoldPatterns(structures)] if structures else [keep]
        fit(model, posed.data, config=TRAINING, loss=posed.loss, callbacks=callbacks, progress=False)
        if left is not None:
            structures = replace(posed, sparsity=1 - left).by_magnitude(posed.weights(model))
            write(model, keep.weights)
            impose_(posed.weights(model), structures)
    assert same(masks(found), {name: s.mask for name, s in structures.items()})
    expected = model.state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in found.model.state_dict().items())
    assert holds(found.model, found.structures) is None


def test_a_ticket_begins_with_early_weights_and_running_statistics() -> None:
    """The smallest learning rate changes no weight, but each batch changes running statistics."""
    posed = _posed(training=replace(TRAINING, lr=1e-30, epochs=1, weight_decay=0.0))
    ticket = Lottery(rounds=3, rewind=0.0).run(posed)
    one = copy.deepcopy(posed.model)
    impose_(posed.weights(one), ticket.structures)
    fit(one, posed.data, config=posed.training, callbacks=[HoldPatterns(ticket.structures)], progress=False)
    for name, tensor in ticket.model.state_dict().items():
        assert torch.equal(tensor, one.state_dict()[name]), name
    assert ticket.model.bn1.num_batches_tracked == posed.model.bn1.num_batches_tracked + 2


def test_every_round_leaves_the_same_fraction_of_what_is_left() -> None:
    outcome = Lottery(rounds=4).run(_posed())
    left = [1 - entry["sparsity"] for entry in outcome.log]
    weights = sum(m.numel() for m in masks(outcome).values())
    assert left == pytest.approx([0.16 ** (r / 4) for r in range(5)], abs=1.01 / weights)
    assert [r.epoch for r in outcome.history] == list(range(5 * 5))
    assert all(entry["loss"] > 0 for entry in outcome.log)


class _NoBatches:
    """Data that nobody may read."""

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("a finished round was trained again")


def test_finished_rounds_are_not_trained_again(tmp_path: Path) -> None:
    expected = Lottery(rounds=2).run(_posed(checkpoint_dir=tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["round_1", "round_2", "round_3"]
    again = Lottery(rounds=2).run(_posed(checkpoint_dir=tmp_path, resume=True, data=_NoBatches()))
    assert same(again.model.state_dict(), expected.model.state_dict())
    assert again.log == expected.log
    with pytest.raises(InputError, match=r"round_1.*exists; resume it"):
        Lottery(rounds=2).run(_posed(checkpoint_dir=tmp_path))


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({"rounds": 3}, {}),
        ({"rounds": 2, "rewind": 0.5}, {}),
        ({"rounds": 2}, {"sparsity": 0.5}),
        ({"rounds": 2}, {"allocation": "uniform"}),
    ],
)
def test_rounds_of_another_run_are_refused(tmp_path: Path, options: dict, changes: dict) -> None:
    Lottery(rounds=2).run(_posed(checkpoint_dir=tmp_path))
    with pytest.raises(InputError, match="belong to another run"):
        Lottery(**options).run(_posed(checkpoint_dir=tmp_path, resume=True, **changes))


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_model_of_the_problem_is_left_untouched(ema: float) -> None:
    posed = _posed(training=replace(TRAINING, ema=ema))
    before = {name: t.clone() for name, t in posed.model.state_dict().items()}
    outcome = Lottery(rounds=1).run(posed)
    assert same(posed.model.state_dict(), before)
    assert holds(outcome.model, outcome.structures) is None


def test_it_asks_for_data() -> None:
    with pytest.raises(InputError, match="'lottery' trains; give data="):
        Lottery().run(_posed(data=None))
