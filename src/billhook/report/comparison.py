"""Several runs next to each other: one line per run, for the terminal and for HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from billhook.errors import InputError
from billhook.report.values import BOUND_DIMENSIONS, format_bound, format_factor, format_value, printable
from billhook.report.view import accuracy_difference, ratio
from billhook.run_record import Run
from billhook.units import parse_quantity

CAVEAT = (
    "Runs are timed at different moments: compare their speed-ups, each taken against its own original in "
    "one interleaved run, rather than their milliseconds."
)


@dataclass(frozen=True)
class RunLine:
    """One run of a comparison, in words; "–" where a run has no such figure."""

    name: str
    model: str
    method: str
    budget: tuple[str, ...]
    speed_up: str
    latency: str
    accuracy: str
    accuracy_change: str
    size: str
    macs: str
    params: str
    budget_met: str
    verified: str
    status: str


def comparison(runs: Sequence[Run]) -> tuple[RunLine, ...]:
    """Return one line per run, in the order given."""
    return tuple(_line(run) for run in runs)


def _line(run: Run) -> RunLine:
    results = run.results
    met = [b.met for b in results.budget_met]
    check = results.check
    return RunLine(
        name=results.name,
        model=results.model,
        method=results.method or "–",
        budget=tuple(f"{metric} ≤ {_bound(metric, v)}" for metric, v in results.budget.items()) or ("–",),
        speed_up=_factor(run, "latency"),
        latency=_after(run, "latency"),
        accuracy=_after(run, "accuracy"),
        accuracy_change=accuracy_difference(results),
        size=_factor(run, "size"),
        macs=_factor(run, "macs"),
        params=_factor(run, "params"),
        budget_met="–" if not met else "yes" if all(met) else "no",
        verified="–" if check is None else "yes" if check.agrees else "no",
        status=results.status,
    )


def _after(run: Run, metric: str) -> str:
    row = run.results.row(metric)
    return "–" if row is None else format_value(row.after.value, row.after.unit)


def _factor(run: Run, metric: str) -> str:
    factor = ratio(run.results, metric)
    return "–" if factor is None else format_factor(factor)


def _bound(metric: str, value: object) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:.0%}"
    try:
        return format_bound(metric, parse_quantity(str(value), BOUND_DIMENSIONS.get(metric, "count")))
    except InputError:
        return printable(str(value))
