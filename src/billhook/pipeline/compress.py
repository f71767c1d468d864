"""Whole runs: begin one, continue one, or only look at what one would do."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from billhook.errors import BillhookError, MissingExtraError
from billhook.pipeline.checks import check, check_unchanged
from billhook.pipeline.deciding import Decision, preview_plan
from billhook.pipeline.event import Event, Listener, silent
from billhook.pipeline.given import with_own_copy
from billhook.pipeline.order import STAGES
from billhook.pipeline.run_directory import RECIPE, RunDirectory
from billhook.pipeline.runner import run_stages
from billhook.pipeline.sparsifying import decides_by
from billhook.pipeline.subject import Subject
from billhook.pipeline.summary import Status, results
from billhook.pipeline.work import Work
from billhook.recipe import Recipe, read, to_toml
from billhook.run_record import Results

WriteReport = Callable[[Path], None]


@dataclass(frozen=True)
class Options:
    """How a run talks to the world; none of it changes what comes out.

    Attributes:
        listen: Told about progress.
        bars: Show progress bars in the terminal.
        write_report: Writes the report of a run directory; None writes none.
    """

    listen: Listener = silent
    bars: bool = False
    write_report: WriteReport | None = None


def preview(recipe: Recipe) -> Decision:
    """Return what a run would decide; writes nothing, trains nothing.

    Raises:
        BillhookError: what a run would raise up to the decision.
    """
    subject = Subject(recipe)
    check(subject)
    return preview_plan(subject)


def begin(subject: Subject, runs: Path) -> RunDirectory:
    """Return a new run directory below `runs` that holds the resolved recipe; never one that exists.

    Raises:
        BillhookError: what can be known now of what a run would raise; then there is no directory either.
    """
    check(subject)
    recipe = subject.recipe
    directory = RunDirectory.create(runs, recipe.name or _name(recipe))
    subject.recipe = with_own_copy(recipe, directory)
    directory.write_text(RECIPE, to_toml(subject.recipe))
    return directory


def carry_out(
    directory: RunDirectory, options: Options | None = None, subject: Subject | None = None
) -> Results:
    """Run every stage that has not finished yet, and return the results.

    Works for a new directory and for one whose run was interrupted or failed, at any moment. Fine-tuning
    continues at the step of its last checkpoint. `results.json` is written however the run ends.

    Args:
        directory: What `begin` made, or an interrupted run left.
        options: How the run talks to the world.
        subject: What was given to `begin`, so that network and data are not made twice.
    Raises:
        BillhookError: if a stage fails; what finished before stays.
        KeyboardInterrupt: after an interrupt; the same.
    """
    options = options or Options()
    with directory.locked():
        subject = subject or Subject(read(directory.file(RECIPE)))
        work = Work(subject, directory, options.listen, bars=options.bars)
        created = _created(directory)
        try:
            check_unchanged(work)
            run_stages(STAGES, work, directory, options.listen)
        except BaseException as e:
            status: Status = "interrupted" if isinstance(e, KeyboardInterrupt) else "failed"
            with contextlib.suppress(BillhookError, OSError):  # a full disk must not hide why the run failed
                failure = "" if status == "interrupted" else _one_line(e)
                results(work, STAGES, status, created, failure).save(directory.path)
            raise
        outcome = results(work, STAGES, "done", created)
        outcome.save(directory.path)
        shutil.rmtree(directory.file("checkpoints"), ignore_errors=True)  # of training that is over
        if options.write_report is not None:
            _report(directory, options)
        return outcome


def _report(directory: RunDirectory, options: Options) -> None:
    assert options.write_report is not None
    try:
        options.write_report(directory.path)
    except MissingExtraError as e:  # the figures are there; only the page is not
        options.listen(Event("note", text=f"{e}; then: billhook report {directory.path}"))


def _created(directory: RunDirectory) -> str:
    """Return when the run began, as its first event says; notes it if this is the beginning."""
    events = directory.events()
    if not events:
        directory.event("begin")
        events = directory.events()
    return datetime.fromtimestamp(float(events[0]["time"])).astimezone().isoformat(timespec="seconds")


def _name(recipe: Recipe) -> str:
    model = recipe.model.name
    if ":" in model:
        model = model.rpartition(":")[2]
    words = [model, recipe.data.name if recipe.data else "", *decides_by(recipe).split(" + ")]
    return re.sub(r"[^\w.-]+", "-", "_".join(filter(None, words)))


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
