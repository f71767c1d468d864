"""The HTML report of searches: the front, the way there, and what was chosen."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from billhook.errors import InputError
from billhook.report import search_figures
from billhook.report.html_page import rendered, write_page
from billhook.report.search_record import SearchRecord, require_comparable
from billhook.report.search_tables import front_rows, progress_in_words, search_subject
from billhook.report.values import TITLES
from billhook.search.studies.trial import Trial


def write_search_html(
    records: Sequence[SearchRecord], path: str | Path, *, chosen: int | None = None
) -> Path:
    """Write the report of one search, or of several over each other, and return its path.

    Args:
        records: Searches with the same cost on the other axis.
        path: The HTML file; replaced if it exists. It appears whole or not at all.
        chosen: Trial of the first search that is shown in full; None: its best.
    Raises:
        InputError: if there is no search, no such trial, or the searches have different costs.
        MissingExtraError: if plotly is not installed.
        StorageError: if the file cannot be written.
    """
    return write_page(search_html(records, chosen=chosen), Path(path))


def search_html(records: Sequence[SearchRecord], *, chosen: int | None = None) -> str:
    """Return the page as text; see `write_search_html`."""
    if not records:
        raise InputError("a report needs at least one study")
    require_comparable(records)
    first = records[0]
    trial = chosen_trial(first) if chosen is None else first.trial(chosen)
    figures = {
        "front": search_figures.front(records, trial),
        "progress": search_figures.progress(records),
        "channels": search_figures.policy(first, "channels", trial),
        "density": search_figures.policy(first, "density", trial),
    }
    title = search_subject(first) if len(records) == 1 else f"{len(records)} searches"
    return rendered(
        "search.html",
        figures,
        title=title,
        metric=TITLES[first.metric],
        chosen=None if trial is None else front_rows(first, [trial])[0],
        genes=[] if trial is None else _genes(first, trial),
        searches=[_search(record) for record in records],
    )


def chosen_trial(record: SearchRecord) -> Trial | None:
    """Return the best trial within the budget; without a budget, the one of the front nearest to the corner.

    The corner is no cost and full accuracy; both are seen relative to the ends of the front.
    """
    if record.best is not None or not record.front:
        return record.best
    costs = [record.share(t) for t in record.front]
    accuracies = [t.accuracy for t in record.front]
    wide = max(costs) - min(costs) or 1.0
    high = max(accuracies) - min(accuracies) or 1.0
    return min(
        record.front,
        key=lambda t: (
            ((record.share(t) - min(costs)) / wide) ** 2 + ((max(accuracies) - t.accuracy) / high) ** 2
        ),
    )


def export_command(record: SearchRecord, trial: Trial) -> str:
    """Return the command that makes a network of a trial."""
    name = "" if record.name == "search" else f" --study-name {shlex.quote(record.name)}"
    return f"billhook search export {shlex.quote(record.place)}{name} --trial {trial.number}"


def _search(record: SearchRecord) -> dict[str, Any]:
    rows = front_rows(record, record.front)
    return {
        "title": record.title,
        "subject": search_subject(record),
        "place": record.place,
        "progress": progress_in_words(record),
        "seed": str(record.seed),
        "options": ", ".join(f"{k} = {v}" for k, v in record.options.items()),
        "front": [
            {**row, "command": export_command(record, trial)}
            for row, trial in zip(rows, record.front, strict=True)
        ],
    }


def _genes(record: SearchRecord, trial: Trial) -> list[dict[str, str]]:
    return [
        {
            "kind": gene.kind,
            "target": gene.target,
            "value": search_figures.gene_value(gene, gene.values[place]),
        }
        for gene, place in zip(record.genes, trial.genes, strict=True)
    ]
