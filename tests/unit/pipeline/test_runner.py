from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from billhook.errors import StorageError
from billhook.pipeline.event import Event
from billhook.pipeline.run_directory import RunDirectory
from billhook.pipeline.runner import Stage, run_stages


class Log:
    """Work of stages that only note that they ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.fail_at = ""
        self.error: BaseException = RuntimeError("no")


def stage(name: str, *, wanted: bool = True) -> Stage[Log]:
    def run(log: Log) -> Mapping[str, Any]:
        log.ran.append(name)
        if log.fail_at == name:
            raise log.error
        return {"summary": f"{name} it", "notes": [f"{name} noted"]}

    return Stage(name, name.title(), run, lambda log: wanted)


STAGES = (stage("a"), stage("b", wanted=False), stage("c"), stage("d"))


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path, "run")


def run(log: Log, directory: RunDirectory) -> list[Event]:
    heard: list[Event] = []
    run_stages(STAGES, log, directory, heard.append)
    return heard


def test_wanted_stages_run_in_order_and_tell_what_they_found(directory: RunDirectory) -> None:
    log = Log()
    heard = run(log, directory)
    assert log.ran == ["a", "c", "d"]
    assert [(e.kind, e.stage) for e in heard] == [
        (kind, name) for name in ("a", "c", "d") for kind in ("start", "done", "note")
    ]
    assert [e.outcome for e in heard if e.kind == "done"] == ["a it", "c it", "d it"]
    assert [e["event"] for e in directory.events()] == ["start", "done"] * 3


@pytest.mark.parametrize(
    ("error", "kind"), [(KeyboardInterrupt(), "interrupted"), (StorageError("full"), "failed")]
)
def test_what_was_finished_is_not_done_again(
    directory: RunDirectory, error: BaseException, kind: str
) -> None:
    log = Log()
    log.fail_at, log.error = "c", error
    with pytest.raises(type(error)):
        run(log, directory)
    assert directory.events()[-1]["event"] == kind
    assert directory.outcome("c") is None

    log.fail_at = ""
    heard = run(log, directory)
    assert log.ran == ["a", "c", "c", "d"]
    assert heard[0].kind == "skip"


def test_a_stage_whose_outcome_cannot_be_kept_has_not_finished(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise StorageError("no space left on the device")

    with monkeypatch.context() as patch:
        patch.setattr(directory, "finish", full)
        with pytest.raises(StorageError):
            run(Log(), directory)
    log = Log()
    run(log, directory)
    assert log.ran == ["a", "c", "d"]


def test_a_full_disk_does_not_hide_why_a_stage_failed(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = directory.event

    def event(kind: str, **fields: Any) -> None:
        if kind == "failed":
            raise StorageError("no space left on the device")
        real(kind, **fields)

    monkeypatch.setattr(directory, "event", event)
    log = Log()
    log.fail_at = "a"
    with pytest.raises(RuntimeError, match="no"):
        run(log, directory)
