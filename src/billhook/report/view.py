"""What the terminal and the HTML report both say about a run, in words: `RunView`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from billhook.report.values import (
    TITLES,
    Tone,
    change,
    flatten,
    format_bound,
    format_points,
    format_relative_spread,
    format_spread,
    format_value,
)
from billhook.results import Check, Measurement
from billhook.run_record import GroupRecord, Results, Row, Run, Sparsity
from billhook.units import format_count

HEADLINES = ("latency", "accuracy", "size", "macs")


@dataclass(frozen=True)
class Card:
    """One headline figure: "2.31× faster" with what it was before and after."""

    title: str
    figure: str
    caption: str
    tone: Tone


@dataclass(frozen=True)
class Line:
    """One metric of the before/after table."""

    metric: str
    title: str
    before: str
    before_range: str
    before_spread: str
    after: str
    after_range: str
    after_spread: str
    change: str
    tone: Tone


@dataclass(frozen=True)
class BudgetLine:
    """One bound and what was reached."""

    title: str
    asked: str
    bound: str
    value: str
    used: str
    met: bool


@dataclass(frozen=True)
class Conditions:
    """Metrics that were measured under the same conditions, and these conditions."""

    titles: str
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Verdict:
    """The outcome of `verify` in one sentence and its figures."""

    tone: Tone
    title: str
    sentence: str
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class GroupLine:
    """One channel group; `state` is "cut", "whole" or "frozen", `why` the reason it is frozen or inexact."""

    id: str
    kept: int
    size: int
    width: int
    state: str
    why: str
    members: tuple[tuple[str, int, str], ...]


@dataclass(frozen=True)
class RunView:
    """A run, ready to be shown."""

    run: Run
    created: str
    cards: tuple[Card, ...]
    lines: tuple[Line, ...]
    budget: tuple[BudgetLine, ...]
    conditions: tuple[Conditions, ...]
    verdict: Verdict
    zeros: str
    groups: tuple[GroupLine, ...]
    settings: tuple[tuple[str, str], ...]
    environment: tuple[tuple[str, str], ...]

    @property
    def results(self) -> Results:
        """The run's record."""
        return self.run.results


def view(run: Run) -> RunView:
    """Return what a report says about `run`."""
    results = run.results
    return RunView(
        run=run,
        created=_date(results.created),
        cards=tuple(_card(row, results) for m in _headlines(results) if (row := results.row(m)) is not None),
        lines=tuple(_line(row, results) for row in results.rows),
        budget=tuple(_budget_lines(results)),
        conditions=tuple(_conditions(results, run.environment)),
        verdict=verdict(results.check),
        zeros=zeros(results.sparsity),
        groups=tuple(_group(g) for g in run.groups),
        settings=_settings(results),
        environment=tuple(flatten(run.environment)),
    )


def verdict(check: Check | None) -> Verdict:
    """Return what `verify` found, in words."""
    if check is None:
        return Verdict(
            "even", "not verified", "Verification was switched off or the run did not get that far.", ()
        )
    items = (
        ("largest absolute error", f"{check.max_abs_error:.2g}"),
        ("largest relative error", f"{check.max_rel_error:.2g}"),
        ("tolerance (relative)", f"{check.tolerance:.2g}"),
    )
    if not check.agrees:
        where = (
            f"; the first layer that differs is {check.first_difference}" if check.first_difference else ""
        )
        return Verdict(
            "bad", "outputs differ", f"Removing the channels does not equal silencing them{where}.", items
        )
    if check.exact:
        return Verdict(
            "good", "exact", "Removing the channels equals silencing them, on every operator.", items
        )
    sentence = "The outputs agree; some removed channels pass through operators that mix channels."
    mixed = (("mixed groups", ", ".join(check.mixed)),) if check.mixed else ()
    return Verdict("good", "agrees", sentence, (*items, *mixed))


def zeros(sparsity: Sparsity | None) -> str:
    """Return how many weights are zero and whether they stayed so, in words; "" without patterns."""
    if sparsity is None:
        return ""
    share = 1 - sparsity.kept / max(1, sparsity.weights)
    tensors = f"{sparsity.tensors} tensors" if sparsity.tensors > 1 else "1 tensor"
    of = f"{format_count(sparsity.weights)} weights in {tensors}"
    words = [f"{100 * share:.1f} % of {of} are zero"]
    if sparsity.numbers < sparsity.kept:
        words.append(f"the others are stored as {format_count(sparsity.numbers)} numbers")
    if sparsity.held is not None:
        kept = "kept every pattern, bit by bit" if sparsity.held else "did not keep every pattern"
        words.append(f"fine-tuning {kept}")
    return "; ".join(words) + "."


def ratio(results: Results, metric: str) -> float | None:
    """Return before ÷ after of a metric; for latency the one of the interleaved run where there is one."""
    if metric == "latency" and results.latency_ratio is not None:
        return results.latency_ratio.median
    row = results.row(metric)
    if row is None or row.before.value <= 0 or row.after.value <= 0:
        return None
    return row.before.value / row.after.value


def _headlines(results: Results) -> tuple[str, ...]:
    """Return what the cards show; zeros make the stored weights smaller, not the exported file."""
    stored = results.sparsity is not None and results.row("stored") is not None
    return tuple("stored" if metric == "size" and stored else metric for metric in HEADLINES)


def _title(row: Row, results: Results) -> str:
    older = results.sparsity is not None and results.row("encoded") is None  # these noted encoded bytes only
    return TITLES["encoded" if row.metric == "bytes" and older else row.metric]


def _card(row: Row, results: Results) -> Card:
    text, tone = change(row, ratio(results, row.metric))
    before, after = (format_value(m.value, m.unit) for m in (row.before, row.after))
    caption = f"{before} → {after}"
    if row.metric == "latency" and results.latency_ratio is not None:
        caption += f"; {results.latency_ratio.minimum:.2f}× by the fastest runs"
    return Card(_title(row, results), text, caption, tone)


def _line(row: Row, results: Results) -> Line:
    text, tone = change(row, ratio(results, row.metric))
    before, after = row.before, row.after
    return Line(
        metric=row.metric,
        title=_title(row, results),
        before=format_value(before.value, before.unit),
        before_range=format_spread(before),
        before_spread=format_relative_spread(before),
        after=format_value(after.value, after.unit),
        after_range=format_spread(after),
        after_spread=format_relative_spread(after),
        change=text,
        tone=tone,
    )


def _budget_lines(results: Results) -> list[BudgetLine]:
    lines = []
    for entry in results.budget_met:
        asked = results.budget.get(entry.metric)
        relative = isinstance(asked, (int, float)) and not isinstance(asked, bool)
        lines.append(
            BudgetLine(
                title=TITLES[entry.metric],
                asked=f"{asked:.0%} of the original" if relative else "absolute",
                bound=format_bound(entry.metric, entry.bound),
                value=format_bound(entry.metric, entry.value),
                used=f"{entry.value / entry.bound:.1%}" if entry.bound > 0 else "–",
                met=entry.met,
            )
        )
    return lines


def _conditions(results: Results, environment: Mapping[str, Any]) -> list[Conditions]:
    """Return the conditions, metrics with the same ones together; what differs reads "before → after"."""
    titles: dict[tuple[tuple[str, str], ...], list[str]] = defaultdict(list)
    for row in results.rows:
        before, after = (_condition_items(m, environment) for m in (row.before, row.after))
        shared = [(k, v) for k, v in before.items() if after.get(k) == v]
        names = [k for k in {**before, **after} if before.get(k) != after.get(k)]
        differing = [(k, f"{before.get(k, '–')} → {after.get(k, '–')}") for k in names]
        titles[(*shared, *differing)].append(_title(row, results))
    return [Conditions(", ".join(names), items) for items, names in titles.items() if items]


def _condition_items(measurement: Measurement, environment: Mapping[str, Any]) -> dict[str, str]:
    """Return the conditions as words; a machine that is the one of the environment table is not repeated."""
    own = {
        key: value
        for key, value in measurement.conditions.items()
        if not isinstance(value, Mapping) or any(environment.get(k) != v for k, v in value.items())
    }
    return dict(flatten(own))


def _group(group: GroupRecord) -> GroupLine:
    state = "frozen" if not group.prunable else "cut" if group.kept < group.size else "whole"
    why = group.frozen or (f"mixing operator: {group.mixed}" if group.mixed else "")
    members = tuple((m.tensor, m.axis, m.role) for m in group.members)
    return GroupLine(group.id, group.kept, group.size, group.width, state, why, members)


def _settings(results: Results) -> tuple[tuple[str, str], ...]:
    items = {
        "model": results.model,
        "data": results.data,
        "method": results.method,
        "budget": dict(results.budget),
        "seeds": list(results.seeds),
    }
    return tuple(flatten({k: v for k, v in items.items() if v not in ("", {}, [])}))


def _date(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
        return f"{moment.day} {moment:%B %Y, %H:%M %Z}".strip()
    except ValueError:
        return text


def accuracy_difference(results: Results) -> str:
    """Return the change of accuracy in points, "–" if it was not measured."""
    row = results.row("accuracy")
    return "–" if row is None else format_points(row.after.value - row.before.value)
