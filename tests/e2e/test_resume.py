"""Whatever stops a run, at whatever moment: nothing that was done is lost, and the outcome is the same."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from billhook.data import Loader
from billhook.pipeline import compress as whole_run
from billhook.pipeline.order import STAGES
from billhook.pipeline.work import Work
from billhook.run_record import Results, Run
from tests.e2e.conftest import NETS, Billhook, billhook_command

RECIPE = f"""
[model]
name = "{NETS}:residual"
[data]
name = "digits"
batch = 64
[budget]
macs = 0.5
[train]
epochs = 1
[finetune]
epochs = 2
checkpoint_steps = 1
[measure]
rounds = 1
seconds_per_round = 0.02
"""
# Which form shortcuts get would otherwise depend on times.
FUSED = (
    RECIPE.replace(":residual", ":blocks")
    + """
[fuse]
level = "aggressive"
keep_if = "always"
"""
)
HINT = "continue with: billhook compress --resume runs/it"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "r.toml").write_text(RECIPE)
    outcome = billhook_command("compress", folder / "r.toml", "--runs", folder, "--name", "it", "--quiet")
    assert outcome.code == 0, outcome.stderr
    return folder / "it"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "r.toml"
    path.write_text(RECIPE)
    return path


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "code", "message", "status"),
    [
        (KeyboardInterrupt(), 130, "interrupted", "interrupted"),
        (full_disk(), 1, "error: no space left on the device; free some space", "failed"),
    ],
    ids=["Ctrl-C", "full disk"],
)
def test_a_run_that_every_stage_stops_once_ends_like_one_that_nothing_stopped(
    error: BaseException,
    code: int,
    message: str,
    status: str,
    billhook: Billhook,
    recipe: Path,
    uninterrupted: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []
    monkeypatch.setattr(whole_run, "STAGES", stopping_once(error, tried))
    outcome = billhook("compress", recipe, "--name", "it", "--quiet")
    directory = recipe.parent / "runs" / "it"
    while outcome.code != 0:
        assert outcome.code == code
        assert message in outcome.stderr
        assert HINT in outcome.stderr
        assert "Traceback" not in outcome.stderr
        assert Run.load(directory).results.status == status
        finished = len(list((directory / "stages").iterdir()))
        assert finished == len(tried) - 1
        outcome = billhook("compress", "--resume", "runs/it", "--quiet")

    assert len(tried) == 9
    assert Run.load(directory).results.status == "done"
    same_outcome(directory, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["l2", "iterative"])
def test_a_run_that_every_stage_stops_once_keeps_its_fusions(
    method: str, billhook: Billhook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = "[prune.training]\nsteps = 6\n" if method == "iterative" else ""
    text = f'{FUSED}\n[prune]\nmethod = "{method}"\n{training}'
    (tmp_path / "r.toml").write_text(text.replace("epochs = 2", "epochs = 1"))
    assert billhook("compress", "r.toml", "--name", "whole", "--quiet").code == 0
    monkeypatch.setattr(whole_run, "STAGES", stopping_once(KeyboardInterrupt(), []))

    outcome = billhook("compress", "r.toml", "--name", "it", "--quiet")
    for _ in STAGES:
        if outcome.code == 0:
            break
        assert outcome.code == 130
        outcome = billhook("compress", "--resume", "runs/it", "--quiet")

    assert outcome.code == 0, outcome.stderr
    same_outcome(tmp_path / "runs/it", tmp_path / "runs/whole")
    runs = [Run.load(tmp_path / "runs" / name).results for name in ("it", "whole")]
    assert runs[0].notes == runs[1].notes
    assert any(note.startswith("fused: add_identity at blocks.0") for note in runs[0].notes)


def stopping_once(error: BaseException, tried: list[str]) -> tuple[Any, ...]:
    """Return the stages of a run, each of which fails the first time and is then noted in `tried`."""

    def stopping(stage: Any) -> Any:
        def run(work: Work) -> Mapping[str, Any]:
            outcome = stage.run(work)  # its files are written, but it does not count as finished
            if stage.name not in tried:
                tried.append(stage.name)
                raise error
            return outcome

        return replace(stage, run=run)

    return tuple(stopping(stage) for stage in STAGES)


@pytest.mark.slow
def test_fine_tuning_goes_on_at_the_step(
    billhook: Billhook, recipe: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at_batch(patch, epoch=1, step=7)
        outcome = billhook("compress", recipe, "--name", "it", "--quiet")
    assert outcome.code == 130
    directory = recipe.parent / "runs" / "it"
    assert not (directory / "stages" / "finetune.json").exists()

    outcome = billhook("compress", "--resume", "runs/it", "--json", "--quiet")

    assert outcome.code == 0, outcome.stderr
    resumed = (directory / "stages" / "finetune.json").read_text()
    assert '"resumed_from": 26' in resumed  # 19 steps of epoch 0 and 7 of epoch 1
    same_outcome(directory, uninterrupted)
    assert not (directory / "checkpoints").exists()


def test_a_full_disk_in_the_middle_of_a_file_leaves_the_earlier_stages(
    billhook: Billhook, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    room = 12

    def fsync(fd: int) -> None:
        nonlocal room
        room -= 1
        if room < 0:
            raise full_disk()
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        outcome = billhook("compress", recipe, "--name", "it", "--quiet")
    assert outcome.code == 1
    assert "no space left" in outcome.stderr.lower()
    assert HINT in outcome.stderr
    directory = recipe.parent / "runs" / "it"
    before = {p.name: p.read_bytes() for p in (directory / "stages").iterdir()}
    assert before
    assert not list(directory.rglob("*.part"))

    outcome = billhook("compress", "--resume", "runs/it", "--quiet")

    assert outcome.code == 0, outcome.stderr
    assert all((directory / "stages" / name).read_bytes() == content for name, content in before.items())


@pytest.mark.slow
def test_ctrl_c_on_a_real_terminal_line(uninterrupted: Path, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.replace("epochs = 2", "epochs = 5000"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "billhook", "compress", "r.toml", "--name", "it"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A terminal's programs hear SIGINT, even where the tests run in the background of a script.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    checkpoint = tmp_path / "runs/it/checkpoints/finetune/checkpoint.safetensors"
    for _ in range(1200):
        if checkpoint.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert stderr.rstrip().endswith(f"interrupted\nwhat is done so far is kept; {HINT}")
    assert "Traceback" not in stderr
    assert Run.load(tmp_path / "runs/it").results.status == "interrupted"


def test_two_processes_cannot_work_on_one_run(
    billhook: Billhook, uninterrupted: Path, tmp_path: Path
) -> None:
    from billhook.pipeline import RunDirectory

    shutil.copytree(uninterrupted, tmp_path / "it")
    with RunDirectory.open(tmp_path / "it").locked():
        outcome = billhook("compress", "--resume", "it")
    assert outcome.code == 2
    assert "another process is working on the run" in outcome.stderr


def test_a_finished_run_is_resumed_without_doing_anything(
    billhook: Billhook, uninterrupted: Path, tmp_path: Path
) -> None:
    shutil.copytree(uninterrupted, tmp_path / "it")
    outcome = billhook("compress", "--resume", "it", "--json")
    assert outcome.code == 0
    assert outcome.stderr.count("done before") == 9
    same_outcome(tmp_path / "it", uninterrupted)


def test_a_network_that_is_another_one_each_time_is_not_resumed(billhook: Billhook, tmp_path: Path) -> None:
    arguments = (f"{NETS}:unseeded", "--input", "1x1x8x8", "--budget", "macs=0.01", "--name", "it")
    assert billhook("compress", *arguments).code == 3  # stops at the budget, after `prepare`
    outcome = billhook("compress", "--resume", "runs/it")
    assert outcome.code == 2
    assert "has other weights than when the run began" in outcome.stderr


def same_outcome(directory: Path, other: Path) -> None:
    """Weights bit by bit, the plan, and everything in the results that is not a time."""
    assert (directory / "plan.json").read_text() == (other / "plan.json").read_text()
    mine, theirs = (load_file(d / "weights.safetensors") for d in (directory, other))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[n], theirs[n]) for n in mine)
    results: list[Results] = [Run.load(d).results for d in (directory, other)]
    for metric in ("accuracy", "macs", "params", "size"):
        rows = [r.row(metric) for r in results]
        assert rows[0] == rows[1]
    assert results[0].history == results[1].history


def stop_at_batch(patch: pytest.MonkeyPatch, *, epoch: int, step: int) -> None:
    """Interrupt when the training loop asks for a batch of that step; validation has fewer batches."""
    from billhook.data._batches import Batches

    real = Batches.epoch

    def stopping(self: Loader, number: int, start: int = 0) -> Iterator[Any]:
        for i, batch in enumerate(real(self, number, start)):
            if number == epoch and start + i == step:
                raise KeyboardInterrupt
            yield batch

    patch.setattr(Batches, "epoch", stopping)
