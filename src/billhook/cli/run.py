"""A run carried out at the command line, whatever command has begun it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from billhook.cli.guard import on_failure
from billhook.cli.terminal import Terminal

if TYPE_CHECKING:
    from billhook.pipeline import RunDirectory, Subject


def carry_out_run(
    ctx: typer.Context, terminal: Terminal, directory: RunDirectory, subject: Subject | None = None
) -> None:
    """Carry a run out, or go on with it: its progress on stderr, what it found on stdout."""
    from billhook.pipeline import Options, carry_out
    from billhook.report import terminal_report, write_html
    from billhook.run_record import Run

    on_failure(
        ctx, f"what is done so far is kept; continue with: billhook compress --resume {directory.path}"
    )

    def write_report(path: Path) -> None:
        write_html([Run.load(path)], path / "report.html")

    options = Options(listen=terminal.show, bars=not terminal.quiet, write_report=write_report)
    results = carry_out(directory, options, subject)
    report = directory.file("report.html")
    data = {
        "run": str(directory.path),
        "report": str(report) if report.is_file() else None,
        **results.to_dict(),
    }
    terminal.data(data, terminal_report([Run.load(directory.path)]))
    if report.is_file():
        terminal.say(f"report: {report}")
