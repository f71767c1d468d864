"""What a search has found, as tables for the terminal and as plain data for JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import log10
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from billhook.allocate.budget import format_value
from billhook.report.search_record import SearchRecord
from billhook.report.tables import plain_table
from billhook.report.values import TITLES, printable
from billhook.search.studies.trial import Trial


def search_data(record: SearchRecord) -> dict[str, Any]:
    """Return everything about a search as plain data; a NaN or an infinity cannot be in it."""
    return {
        "study": record.place,
        "name": record.name,
        "method": record.method,
        "options": dict(record.options),
        "model": record.model,
        "data": record.data,
        "seed": record.seed,
        "metric": record.metric,
        "original": dict(record.original),
        "limits": dict(record.limits),
        "planned": record.planned,
        "finished": len(record.trials),
        "best": None if record.best is None else record.best.to_dict(),
        "front": [t.number for t in record.front],
        "hypervolume": record.volume,
        "genes": [{"kind": g.kind, "target": g.target, "values": list(g.values)} for g in record.genes],
        "trials": [t.to_dict() for t in record.trials],
    }


def search_tables(record: SearchRecord, top: int) -> list[RenderableType]:
    """Return what `billhook search show` prints: how far it is, the best trials, the front.

    Args:
        record: The search.
        top: How many of the best trials are listed.
    """
    title = Text.assemble((printable(record.title), "bold"), f"  {printable(search_subject(record))}")
    parts: list[RenderableType] = [title, Text(progress_in_words(record))]
    best = record.ranked()[:top] if record.limits else []
    if best:
        parts += [Text(), Text("most accurate within the budget", "bold"), trials_table(record, best)]
    if record.front:
        parts += [Text(), Text(f"front of accuracy and {record.metric}", "bold")]
        parts += [trials_table(record, record.front)]
    return parts


def trials_table(record: SearchRecord, trials: Iterable[Trial]) -> Table:
    """Return one row per trial: accuracy, loss and costs, with their ratio to the original's."""
    metrics = [m for m in record.original if m in TITLES]
    table = plain_table(">Trial", ">Accuracy", ">Loss", *(f">{TITLES[m]}" for m in metrics), ">Of original")
    for trial in trials:
        costs = (format_value(m, trial.costs[m]) for m in metrics)
        numbers = [str(trial.number), f"{100 * trial.accuracy:.2f} %", f"{trial.loss:.4f}"]
        table.add_row(*numbers, *costs, f"{record.share(trial):.1%}")
    return table


def progress_in_words(record: SearchRecord) -> str:
    """Return e.g. "120 of 200 trials finished, 14 of them from memory; hypervolume 0.6012"."""
    of = "" if record.planned is None else f" of {max(record.planned, len(record.trials))}"
    cached = sum(t.cached for t in record.trials)
    memory = f", {cached} of them known before" if cached else ""
    volume = f"; hypervolume {record.volume:.4f}" if record.trials else ""
    return f"{len(record.trials)}{of} trials finished{memory}{volume}"


def preview_tables(preview: Mapping[str, Any]) -> list[RenderableType]:
    """Return what a dry run prints: the decisions and the costs within reach.

    Args:
        preview: With "genes", "candidates" and "costs", as `SearchPreview.to_dict` makes it.
    """
    genes = plain_table("Decision", "Of", ">Values", "From", "To")
    for gene in preview["genes"]:
        values = gene["values"]
        genes.add_row(
            gene["kind"],
            Text(printable(gene["target"])),
            str(len(values)),
            _number(gene["kind"], values[0]),
            _number(gene["kind"], values[-1]),
        )
    costs = plain_table("Cost", ">Least", ">Original", ">Least of original", ">Budget")
    for metric, ends in preview["costs"].items():
        limit = format_value(metric, ends["limit"]) if "limit" in ends else ""
        least, most = (format_value(metric, ends[end]) for end in ("least", "most"))
        costs.add_row(TITLES[metric], least, most, f"{ends['least'] / ends['most']:.1%}", limit)
    count = int(preview["candidates"])
    words = f"{count:,}" if count < 10**6 else f"about 10^{log10(count):.0f}"
    return [genes, Text(), Text(f"{words} candidates"), Text(), costs]


def search_subject(record: SearchRecord) -> str:
    """Return what is searched: "resnet-20 on fashion-mnist; macs ≤ 14.2 M"."""
    subject = " on ".join(filter(None, (record.model, record.data)))
    bounds = ", ".join(f"{m} ≤ {format_value(m, v)}" for m, v in record.limits.items())
    return "; ".join(filter(None, (subject, bounds)))


def _number(kind: str, value: float) -> str:
    return f"{value:.0f} channels" if kind == "channels" else f"{value:.0%} of the weights"


def front_rows(record: SearchRecord, trials: Sequence[Trial]) -> list[dict[str, str]]:
    """Return the rows of a table of trials as texts, for HTML."""
    return [
        {
            "number": str(t.number),
            "accuracy": f"{100 * t.accuracy:.2f} %",
            "loss": f"{t.loss:.4f}",
            "cost": format_value(record.metric, t.costs[record.metric]),
            "share": f"{record.share(t):.1%}",
        }
        for t in trials
    ]
