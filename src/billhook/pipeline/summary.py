"""`results.json` from what the stages handed back, as far as the run has come."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Literal

from billhook.allocate.budget import Budget
from billhook.pipeline.runner import Stage
from billhook.pipeline.sparsifying import decides_by
from billhook.pipeline.work import Work
from billhook.results import Check, Measurement
from billhook.run_record import (
    BudgetEntry,
    Distance,
    Epoch,
    LatencyRatio,
    Results,
    Row,
    Sparsity,
    TrajectoryPoint,
)

Status = Literal["done", "interrupted", "failed"]
Outcome = Mapping[str, Any]

_COSTS = {"macs": "count", "params": "count", "bytes": "B", "peak_activation_bytes": "B"}


def results(
    work: Work, stages: tuple[Stage[Work], ...], status: Status, created: str, failure: str = ""
) -> Results:
    """Return everything that is known about the run."""
    done = {stage.name: work.outcome(stage.name) for stage in stages}
    recipe = work.recipe
    budget = None if recipe.budget is None else recipe.budget.to_budget()
    notes = [note for outcome in done.values() for note in outcome.get("notes", ())]
    check = (done["sparsify"] or done["prune"]).get("check")
    ratio = done["measure"].get("ratio")
    return Results(
        name=work.directory.path.name,
        model=recipe.model.name,
        data=recipe.data.name if recipe.data else "",
        created=created,
        status=status,
        budget={} if budget is None else budget.to_dict(),
        method=decides_by(recipe),
        seeds=(recipe.seed,),
        rows=_rows(done),
        latency_ratio=LatencyRatio(**ratio) if ratio else None,
        sparsity=_sparsity(done),
        check=Check(**{**check, "mixed": tuple(check["mixed"])}) if check else None,
        budget_met=() if budget is None else _budget_met(budget, done),
        trajectory=_trajectory(done, pruned=recipe.prunes),
        history=tuple(
            Epoch(entry["epoch"], entry["loss"], entry["metrics"].get("accuracy"))
            for entry in done["finetune"].get("history", ())
        ),
        distances=_distances(done),
        notes=tuple([*notes, *([failure] if failure else [])]),
    )


def _rows(done: Mapping[str, Outcome]) -> tuple[Row, ...]:
    rows = []
    measured, scored, costs = done["measure"], done["score"], _costs(done)
    if measured:
        rows.append(_measured("latency", measured, "lower"))
    if scored:
        before, after = (Measurement.from_dict(scored[side]) for side in ("before", "after"))
        rows.append(Row("accuracy", before, after, "higher"))
    rows += [_measured(size, measured, "lower") for size in _SIZES if _has(measured, size)]
    if costs:
        for metric, unit in _COSTS.items():
            values = costs["before"][metric], costs["after"][metric]
            memory = _memory(done) if metric == "bytes" and "memory" in done["sparsify"] else None
            if memory is not None:
                rows.append(_formula("bytes", memory, unit))
            rows.append(_formula("encoded" if memory is not None else metric, values, unit))
    if measured:
        rows += [_measured("throughput", measured, "higher"), _measured("peak_rss", measured, "lower")]
    return tuple(rows)


def _formula(metric: Any, values: tuple[float, float], unit: str) -> Row:
    before, after = (Measurement(float(v), unit, conditions={"how": "formula"}) for v in values)
    return Row(metric, before, after, "lower")


# How a size is called in the results and by the stage.
_SIZES = {"size": "size", "size_gzip": "gzip", "stored": "stored", "stored_gzip": "stored_gzip"}


def _has(measured: Outcome, metric: str) -> bool:
    return bool(measured) and all(_SIZES[metric] in measured[side] for side in ("before", "after"))


def _measured(metric: Any, measured: Outcome, better: Literal["lower", "higher"]) -> Row:
    key = _SIZES.get(metric, metric)
    before, after = (Measurement.from_dict(measured[side][key]) for side in ("before", "after"))
    return Row(metric, before, after, better)


def _budget_met(budget: Budget, done: Mapping[str, Outcome]) -> tuple[BudgetEntry, ...]:
    """Return each bound and what was reached: latency as finally measured, the rest by formula."""
    entries = []
    for metric, bound in budget.bounds.items():
        values = _before_after(metric, done)
        if values is not None:
            limit = bound.absolute(values[0])
            entries.append(BudgetEntry(metric, limit, values[1], values[1] <= limit * _TOLERANCE[metric]))  # type: ignore[arg-type]
    return tuple(entries)


# A latency is a measurement: 5 % above the bound is within what two measurements of one file differ by.
_TOLERANCE = {"macs": 1.0, "params": 1.0, "size": 1.0, "latency": 1.05}


def _before_after(metric: str, done: Mapping[str, Outcome]) -> tuple[float, float] | None:
    if metric == "latency":
        measured = done["measure"]
        return (measured["before"][metric]["value"], measured["after"][metric]["value"]) if measured else None
    if metric == "size":
        return _memory(done)
    costs = _costs(done)
    return (costs["before"][metric], costs["after"][metric]) if costs else None


def _memory(done: Mapping[str, Outcome]) -> tuple[float, float] | None:
    """Return the bytes of weights as a runtime holds them, with the zeros that patterns leave out."""
    costs = _costs(done)
    if not costs:
        return None
    dense = done["export"].get("memory") or done["sparsify"].get("memory")
    return costs["before"]["bytes"], dense or costs["after"]["bytes"]


def _costs(done: Mapping[str, Outcome]) -> dict[str, Any]:
    """Return costs before and after; lowering of fusions may have changed what the plan promised."""
    decided = done["decide"]
    later = done["export"].get("after") or done["sparsify"].get("after")
    return {**decided, "after": later} if decided and later else dict(decided)


def _sparsity(done: Mapping[str, Outcome]) -> Sparsity | None:
    """Return how many weights are left, and whether training has kept it so."""
    weights = done["sparsify"].get("weights")
    return Sparsity(**weights, held=done["finetune"].get("held")) if weights else None


def _distances(done: Mapping[str, Outcome]) -> tuple[Distance, ...]:
    """Return how near a method that notes it has brought the weights to their patterns."""
    return tuple(
        Distance(int(entry["step"]), _finite(entry["primal"]), _finite(entry["dual"]))
        for entry in done["sparsify"].get("log", ())
        if {"step", "primal", "dual"} <= entry.keys()
    )


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None


def _trajectory(done: Mapping[str, Outcome], *, pruned: bool) -> tuple[TrajectoryPoint, ...]:
    """Return accuracy on the validation split and latency, step by step; widths change only once."""
    before, after = _before_after("latency", done) or (None, None)
    points = [("original", before, done["baseline"].get("accuracy"))]
    if done["prune"] and pruned:
        points.append(("pruned", after, done["prune"].get("accuracy")))
    for entry in done["settle"].get("history", ()):
        points.append((f"settled, epoch {entry['epoch'] + 1}", after, entry["metrics"].get("accuracy")))
    if done["sparsify"]:
        points.append(("sparse", after, done["sparsify"].get("accuracy")))
    if done["recalibrate"].get("kept"):
        points.append(("batch norm recalibrated", after, done["recalibrate"]["accuracy"]))
    for entry in done["finetune"].get("history", ()):
        points.append((f"fine-tuned, epoch {entry['epoch'] + 1}", after, entry["metrics"].get("accuracy")))
    return tuple(TrajectoryPoint(label, latency, accuracy) for label, latency, accuracy in points)
