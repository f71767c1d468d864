"""The HTML report of runs: one file that holds everything and asks the network for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from billhook.errors import InputError
from billhook.report.comparison import CAVEAT, comparison
from billhook.report.figures import Figure, channels, distances, training, weights
from billhook.report.html_page import rendered, write_page
from billhook.report.scatter import accuracy_latency
from billhook.report.view import view
from billhook.run_record import Run


def write_html(runs: Sequence[Run], path: str | Path) -> Path:
    """Write the report of one run, or the comparison of several, and return its path.

    Args:
        runs: What `Run.load` returned; the order is kept.
        path: The HTML file; replaced if it exists. It appears whole or not at all.
    Raises:
        MissingExtraError: if plotly is not installed.
        StorageError: if the file cannot be written.
    """
    return write_page(html_report(runs), Path(path))


def html_report(runs: Sequence[Run]) -> str:
    """Return the page as text; see `write_html`."""
    if not runs:
        raise InputError("a report needs at least one run directory")
    return rendered(
        "report.html",
        _figures(runs),
        views=[view(run) for run in runs],
        comparison=comparison(runs),
        caveat=CAVEAT,
        trajectories=[(run.results.name, run.results.trajectory) for run in runs],
    )


def _figures(runs: Sequence[Run]) -> dict[str, Figure | None]:
    """Return the plots by the name under which the template asks for them."""
    figures: dict[str, Figure | None] = {}
    if len(runs) > 1:
        figures["all-path"] = accuracy_latency([r.results for r in runs])
    for i, run in enumerate(runs):
        figures[f"run-{i}-path"] = accuracy_latency([run.results])
        figures[f"run-{i}-channels"] = channels(run.layers)
        figures[f"run-{i}-weights"] = weights(run.layers)
        figures[f"run-{i}-distances"] = distances(run.results.distances)
        figures[f"run-{i}-training"] = training(run.results.history)
    return figures
