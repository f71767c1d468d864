"""The report for a terminal: the same words as the HTML report, as rich tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from billhook.errors import InputError
from billhook.report.comparison import CAVEAT, comparison
from billhook.report.tables import plain_table
from billhook.report.values import Tone, printable
from billhook.report.view import RunView, view
from billhook.run_record import Run

STYLES: dict[Tone, str] = {"good": "green", "bad": "red", "even": ""}
CHANGES: dict[Tone, str] = {**STYLES, "bad": "yellow"}  # a price is no failure


def terminal_report(runs: Sequence[Run]) -> RenderableType:
    """Return what `billhook report` prints: one run in full, or a table with a row per run.

    Raises:
        InputError: if there is no run.
    """
    if not runs:
        raise InputError("a report needs at least one run directory")
    return _one(view(runs[0])) if len(runs) == 1 else _several(runs)


def _one(shown: RunView) -> RenderableType:
    results = shown.results
    subject = f"{results.model} on {results.data}" if results.data else results.model
    title = Text.assemble((printable(results.name), "bold"), f"  {printable(subject)}")
    parts: list[RenderableType] = [title]
    if results.status != "done":
        parts.append(
            Text(f"This run {'was interrupted' if results.status == 'interrupted' else 'failed'}.", "red")
        )
    if shown.lines:
        parts += [Text(), _before_after(shown)]
    if shown.budget:
        parts += [Text(), _budget(shown)]
    parts.append(Text())
    verdict = shown.verdict
    parts.append(
        Text.assemble(
            "Verification: ", (verdict.title, STYLES[verdict.tone]), ". ", printable(verdict.sentence)
        )
    )
    if shown.zeros:
        parts.append(Text(f"Zeros: {shown.zeros}"))
    parts += [Text(f"Note: {printable(note)}") for note in results.notes]
    return Group(*parts)


def _before_after(shown: RunView) -> Table:
    table = plain_table("Metric", ">Original", ">", ">Compressed", ">", ">Change")
    for line in shown.lines:
        table.add_row(
            line.title,
            line.before,
            Text(line.before_spread, "dim"),
            line.after,
            Text(line.after_spread, "dim"),
            Text(line.change, CHANGES[line.tone]),
        )
    return table


def _budget(shown: RunView) -> Table:
    table = plain_table("Budget", ">At most", ">Reached", ">Used", "Met")
    for line in shown.budget:
        met = Text("yes", STYLES["good"]) if line.met else Text("no", STYLES["bad"])
        table.add_row(line.title, line.bound, line.value, line.used, met)
    return table


def _several(runs: Sequence[Run]) -> RenderableType:
    table = plain_table(
        "Run", "Method", "Budget", ">Speed-up", ">Accuracy", ">Points", ">Size", "Met", "Verified"
    )
    for line in comparison(runs):
        name = line.name if line.status == "done" else f"{line.name} ({line.status})"
        table.add_row(
            Text(printable(name)),
            Text(printable(line.method)),
            Text("\n".join(printable(bound) for bound in line.budget)),
            line.speed_up,
            line.accuracy,
            line.accuracy_change.removesuffix(" points"),
            line.size,
            line.budget_met,
            line.verified,
        )
    return Group(table, Text(), Text(CAVEAT, "dim"))
