"""Methods that decide while they train, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import billhook as bh
from billhook.run_record import Run
from tests.e2e.conftest import NETS, Billhook, billhook_command
from tests.e2e.nets import residual
from tests.e2e.test_resume import same_outcome, stop_at_batch

RECIPE = f"""
[model]
name = "{NETS}:residual"
[data]
name = "digits"
batch = 64
[budget]
macs = 0.6
[prune]
method = "gator"
[prune.training]
epochs = 3
checkpoint_steps = 1
[train]
epochs = 1
[finetune]
epochs = 1
lr = "auto"
[measure]
rounds = 1
seconds_per_round = 0.02
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "r.toml").write_text(RECIPE)
    outcome = billhook_command("compress", folder / "r.toml", "--runs", folder, "--name", "it", "--quiet")
    assert outcome.code == 0, outcome.stderr
    return folder / "it"


@pytest.mark.slow
def test_the_weights_that_the_method_has_trained_are_those_that_are_pruned(finished: Path) -> None:
    decide = json.loads((finished / "stages" / "decide.json").read_text())
    assert decide["weights"] == "changed"
    assert len(decide["history"]) == 3
    assert json.loads((finished / "stages" / "prune.json").read_text())["check"]["exact"]
    original, decided = (load_file(finished / f"{n}.safetensors") for n in ("original", "decided"))
    assert original.keys() == decided.keys()
    assert not torch.equal(original["stem.0.weight"], decided["stem.0.weight"])
    assert decide["after"]["macs"] <= 0.6 * decide["before"]["macs"]
    small = bh.load(finished, residual)
    assert small(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    assert Run.load(finished).results.status == "done"


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 9])
def test_a_decision_goes_on_at_the_step_where_it_was_interrupted(
    billhook: Billhook, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    with monkeypatch.context() as patch:
        stop_at_batch(patch, epoch=1, step=step)  # only the decision has a second epoch
        outcome = billhook("compress", "r.toml", "--name", "it", "--quiet")
    assert outcome.code == 130, outcome.stderr
    directory = tmp_path / "runs" / "it"
    assert (directory / "stages" / "baseline.json").exists()
    assert not (directory / "stages" / "decide.json").exists()
    outcome = billhook("compress", "--resume", "runs/it", "--quiet")
    assert outcome.code == 0, outcome.stderr
    same_outcome(directory, finished)
    ours, theirs = (load_file(d / "decided.safetensors") for d in (directory, finished))
    assert all(torch.equal(t, theirs[n]) for n, t in ours.items())


def test_a_dry_run_does_not_train(billhook: Billhook, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    outcome = billhook("compress", "r.toml", "--dry-run")
    assert outcome.code == 2
    assert "method 'gator' decides while it trains, so a dry run cannot show its plan" in outcome.stderr


def test_a_method_that_trains_asks_for_data(billhook: Billhook) -> None:
    outcome = billhook(
        "compress", f"{NETS}:residual", "--input", "1x1x8x8", "--budget", "macs=0.5", "--method", "gator"
    )
    assert outcome.code == 2
    assert "method 'gator' learns from data: give --data" in outcome.stderr
    assert "Traceback" not in outcome.stderr
