from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from billhook.errors import InputError, StorageError
from billhook.pipeline.run_directory import RECIPE, RunDirectory


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path, "demo")


def test_a_run_never_takes_the_place_of_another(tmp_path: Path) -> None:
    names = [RunDirectory.create(tmp_path / "runs", "demo").path.name for _ in range(3)]
    assert names == ["demo", "demo-2", "demo-3"]


def test_a_stage_is_finished_once_its_outcome_is_kept(run: RunDirectory) -> None:
    assert run.outcome("plan") is None
    run.finish("plan", {"macs": 3})
    assert run.outcome("plan") == {"macs": 3}


def test_opening_needs_a_run_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        RunDirectory.open(tmp_path / "none")
    with pytest.raises(InputError, match=r"has no recipe\.toml"):
        RunDirectory.open(tmp_path)


def test_an_existing_run_is_opened(run: RunDirectory) -> None:
    run.write_text(RECIPE, "")
    assert RunDirectory.open(run.path).path == run.path


def test_events_are_lines_in_order(run: RunDirectory) -> None:
    run.event("start", stage="plan")
    run.event("done", stage="plan")
    assert [(e["event"], e["stage"]) for e in run.events()] == [("start", "plan"), ("done", "plan")]


def test_an_event_that_a_crash_cut_off_is_left_out_and_the_log_goes_on(run: RunDirectory) -> None:
    run.event("start")
    with run.file("events.jsonl").open("a") as stream:
        stream.write('{"time": 1, "ev')
    run.event("resume")
    assert [e["event"] for e in run.events()] == ["start", "resume"]


def test_a_full_disk_leaves_the_old_file_whole(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    run.write_json("plan.json", {"old": True})

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"no space left on the device.*free some space"):
        run.write_json("plan.json", {"old": False})
    with pytest.raises(StorageError, match="no space left"):
        run.event("start")
    assert json.loads(run.file("plan.json").read_text()) == {"old": True}
    assert not list(run.path.glob("*.part"))


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000])
def test_a_broken_outcome_is_named(run: RunDirectory, content: str) -> None:
    run.file("stages/plan.json").write_text(content)
    with pytest.raises(StorageError, match=r"stages/plan\.json"):
        run.outcome("plan")


def test_what_json_cannot_hold_is_not_written(run: RunDirectory) -> None:
    bad: Any = {"loss": float("nan")}
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.finish("finetune", bad)
    assert run.outcome("finetune") is None


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        RunDirectory.create(tmp_path / "file", "demo")
