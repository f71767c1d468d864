"""`billhook report`: what runs found, in the terminal and as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from billhook.cli.options import Debug, Json, Quiet
from billhook.cli.terminal import Terminal

Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.", show_default=False)]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="HTML file to write.",
        show_default="report.html in the run directory, in the current folder for several runs",
    ),
]


def report(
    runs: Runs, output: Output = None, as_json: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Show what runs found: a table here, and an HTML file that needs no network."""
    from billhook.report import terminal_report, write_html
    from billhook.run_record import Run

    terminal = Terminal(as_json, quiet)
    records = [Run.load(path) for path in runs]
    path = output or (runs[0] if len(runs) == 1 else Path()) / "report.html"
    write_html(records, path)
    terminal.data(
        {"report": str(path), "runs": [r.results.to_dict() for r in records]},
        terminal_report(records),
    )
    terminal.say(f"report: {path}")
