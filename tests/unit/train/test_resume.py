"""An interrupted run goes on exactly as if nothing had happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from billhook.errors import InputError, StorageError
from billhook.graph.plan import Plan
from billhook.train import Callback, FitConfig, FitResult, StepContext, fit
from billhook.train.checkpoint import FILE, load_checkpoint
from tests.unit.train.test_checkpoint import full_disk
from tests.unit.train.tiny import EXACT, NoisyDecay, StopAt, TinyBatches, assert_same_weights, tiny_net

EVERYTHING = replace(EXACT, epochs=3, ema=0.95, clip=1.0, checkpoint_steps=2, log_every=3)


class Counts(Callback):
    """Decides a plan from what it has seen."""

    def __init__(self) -> None:
        self.seen = 0

    def after_step(self, context: StepContext) -> None:
        self.seen += len(context.targets)

    def finish(self, context: StepContext) -> Plan:
        return Plan({"g": np.arange(self.seen) % 2 == 0}, "fingerprint")

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = state["seen"]


def run(
    directory: Path | None,
    config: FitConfig,
    *,
    stop: int | None = None,
    resume: bool = False,
    batches: Any = None,
    seed: int = 0,
) -> tuple[torch.nn.Module, FitResult | None]:
    model = tiny_net(seed, dropout=0.3)
    batches = TinyBatches() if batches is None else batches
    try:
        result = fit(
            model,
            batches,
            config=config,
            teacher=tiny_net(5),
            validate=TinyBatches(count=1),
            callbacks=[NoisyDecay(), Counts(), StopAt(stop)],
            checkpoint_dir=directory,
            resume=resume,
        )
    except KeyboardInterrupt:
        return model, None
    return model, result


def assert_same_run(one: FitResult | None, other: FitResult | None) -> None:
    assert one is not None
    assert other is not None
    strip = [[replace(record, seconds=0.0) for record in r.history] for r in (one, other)]
    assert strip[0] == strip[1]
    assert one.plans == other.plans
    assert (one.steps, one.loss) == (other.steps, other.loss)


@pytest.mark.parametrize("stop", [0, 1, 2, 4, 5, 8, 9, 13, 14])
def test_a_run_that_was_stopped_ends_like_one_that_was_not(tmp_path: Path, stop: int) -> None:
    whole, expected = run(None, EVERYTHING)
    _, nothing = run(tmp_path, EVERYTHING, stop=stop)
    assert nothing is None
    # Another process would start with other weights: all of them must come from the checkpoint.
    resumed, result = run(tmp_path, EVERYTHING, resume=True, seed=9 if stop >= 2 else 0)
    assert_same_weights(whole, resumed)
    assert_same_run(expected, result)
    assert result is not None
    assert result.resumed_from == (stop - stop % 2 or None)


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "adamw", "lr": 0.01},
        {"schedule": "cosine", "ema": 0.0, "channels_last": False},
        {"precision": "bf16-mixed"},
        {"steps": 13},
    ],
    ids=str,
)
def test_it_holds_for_other_configurations(tmp_path: Path, change: dict[str, Any]) -> None:
    config = replace(EVERYTHING, **change)
    whole, expected = run(None, config)
    run(tmp_path, config, stop=7)
    resumed, result = run(tmp_path, config, resume=True, seed=9)
    assert_same_weights(whole, resumed)
    assert_same_run(expected, result)


def test_it_holds_for_a_shuffled_loader_and_several_interruptions(tmp_path: Path) -> None:
    data = TinyBatches()

    def loader() -> DataLoader[Any]:
        return DataLoader(TensorDataset(data.inputs, data.targets), batch_size=8, shuffle=True)

    whole, expected = run(None, EVERYTHING, batches=loader())
    for i, stop in enumerate((3, 6, 11)):
        run(tmp_path, EVERYTHING, stop=stop, resume=i > 0, batches=loader())
    resumed, result = run(tmp_path, EVERYTHING, resume=True, batches=loader(), seed=9)
    assert_same_weights(whole, resumed)
    assert_same_run(expected, result)


def test_how_often_somebody_looks_does_not_matter(tmp_path: Path) -> None:
    whole, expected = run(None, replace(EVERYTHING, log_every=50))
    run(tmp_path, EVERYTHING, stop=8)
    resumed, result = run(tmp_path, replace(EVERYTHING, log_every=1, checkpoint_steps=None), resume=True)
    assert_same_weights(whole, resumed)
    assert_same_run(expected, result)


def test_a_finished_run_is_not_made_again(tmp_path: Path) -> None:
    done, first = run(tmp_path, EVERYTHING)
    before = (tmp_path / FILE).stat().st_mtime_ns
    again, result = run(tmp_path, EVERYTHING, resume=True, stop=0, seed=9)  # no step, so no stop
    assert_same_weights(done, again)
    assert_same_run(first, result)
    assert (tmp_path / FILE).stat().st_mtime_ns == before


def test_resume_without_a_checkpoint_begins_at_the_beginning(tmp_path: Path) -> None:
    whole, expected = run(None, EVERYTHING)
    fresh, result = run(tmp_path / "new", EVERYTHING, resume=True)
    assert_same_weights(whole, fresh)
    assert_same_run(expected, result)


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_can_go_on(tmp_path: Path) -> None:
    whole, expected = run(None, EVERYTHING)
    run(tmp_path, EVERYTHING, stop=6)
    with full_disk(2000), pytest.raises(StorageError, match="checkpoint before this one is kept"):
        run(tmp_path, EVERYTHING, resume=True)
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 6
    resumed, result = run(tmp_path, EVERYTHING, resume=True, seed=9)
    assert_same_weights(whole, resumed)
    assert_same_run(expected, result)


def test_another_configuration_is_named(tmp_path: Path) -> None:
    run(tmp_path, EVERYTHING, stop=4)
    with pytest.raises(InputError, match=r"lr was 0\.1 and is now 0\.05\. Use the same settings"):
        run(tmp_path, replace(EVERYTHING, lr=0.05), resume=True)
    with pytest.raises(InputError, match="batches per epoch was 5 and is now 4"):
        run(tmp_path, EVERYTHING, resume=True, batches=TinyBatches(count=4))


def test_another_network_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    run(tmp_path, EVERYTHING, stop=4)
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(72, 3))
    with pytest.raises(InputError, match=r"network was '10 tensors #\w+' and is now '2 tensors"):
        fit(other, TinyBatches(), config=EVERYTHING, checkpoint_dir=tmp_path, resume=True)


def test_an_existing_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    run(tmp_path, EVERYTHING, stop=4)
    with pytest.raises(InputError, match="resume it with resume=True"):
        run(tmp_path, EVERYTHING)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run(tmp_path, EVERYTHING, stop=4)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StorageError, match=FILE):
        run(tmp_path, EVERYTHING, resume=True)
