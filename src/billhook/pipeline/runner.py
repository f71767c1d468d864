"""Run stages in order, each once: what is finished stays finished, whatever happens later."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from billhook.errors import BillhookError
from billhook.pipeline.event import Event, Listener
from billhook.pipeline.run_directory import RunDirectory

W = TypeVar("W")
Outcome = Mapping[str, Any]


@dataclass(frozen=True)
class Stage(Generic[W]):
    """One step of a run.

    Attributes:
        name: Key of its outcome in the run directory.
        title: What it does, for people.
        run: Does it, and returns plain data for JSON; files are written into the run directory.
        wanted: Is it part of this run?
    """

    name: str
    title: str
    run: Callable[[W], Outcome]
    wanted: Callable[[W], bool] = lambda work: True


def run_stages(stages: Sequence[Stage[W]], work: W, directory: RunDirectory, listen: Listener) -> None:
    """Run every wanted stage that has no outcome yet.

    An error or an interrupt is noted in `events.jsonl` and raised again; outcomes of earlier stages
    stay, so that running the same stages on the same directory continues where it stopped.
    """
    for stage in stages:
        if not stage.wanted(work):
            continue
        if directory.outcome(stage.name) is not None:
            listen(Event("skip", stage.name, stage.title))
            continue
        listen(Event("start", stage.name, stage.title))
        directory.event("start", stage=stage.name)
        began = time.monotonic()
        try:
            outcome = stage.run(work)
            directory.finish(stage.name, outcome)
        except BaseException as e:
            with contextlib.suppress(BillhookError):  # a full disk must not hide why the stage failed
                directory.event(_kind(e), stage=stage.name, error=f"{type(e).__name__}: {e}")
            raise
        seconds = round(time.monotonic() - began, 3)
        directory.event("done", stage=stage.name, seconds=seconds)
        listen(Event("done", stage.name, stage.title, str(outcome.get("summary", "")), seconds))
        for note in outcome.get("notes", ()):
            listen(Event("note", stage.name, note))


def _kind(error: BaseException) -> str:
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
