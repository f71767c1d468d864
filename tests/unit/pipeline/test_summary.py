from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from billhook.pipeline import RunDirectory, Subject, summary
from billhook.pipeline.event import silent
from billhook.pipeline.order import STAGES
from billhook.pipeline.work import Work
from billhook.recipe import Recipe
from billhook.results import Measurement
from billhook.run_record import Distance, Results, Sparsity


@pytest.fixture
def work(tmp_path: Path) -> Work:
    recipe = Recipe.model_validate(
        {"model": {"name": "resnet-8"}, "data": {"name": "digits"}, "budget": {"latency": 0.5, "macs": 0.5}}
    )
    return Work(Subject(recipe), RunDirectory.create(tmp_path, "it"), silent)


def results(work: Work, outcomes: dict[str, dict[str, Any]]) -> Results:
    for stage, outcome in outcomes.items():
        work.directory.finish(stage, outcome)
    return summary.results(work, STAGES, "done", "2026-01-01T00:00:00+00:00")


def measured(latency: float) -> dict[str, Any]:
    units = {"latency": "s", "throughput": "samples/s", "peak_rss": "B", "size": "B"}
    return {m: Measurement(latency, unit).to_dict() for m, unit in units.items()}


COST = {"macs": 100, "params": 10, "bytes": 40, "peak_activation_bytes": 8}


def test_a_run_that_has_only_begun_has_results(work: Work) -> None:
    found = results(work, {})
    assert (found.rows, found.budget_met, found.check) == ((), (), None)
    assert Results.from_dict(found.to_dict()) == found


@pytest.mark.parametrize(("after", "met"), [(0.5, True), (0.52, True), (0.53, False)])
def test_a_bound_on_latency_is_judged_by_the_final_measurement(work: Work, after: float, met: bool) -> None:
    ratio = {"median": 1 / after, "minimum": 1 / after}
    found = results(work, {"measure": {"before": measured(1.0), "after": measured(after), "ratio": ratio}})
    (entry,) = found.budget_met
    assert (entry.metric, entry.bound, entry.value, entry.met) == ("latency", 0.5, after, met)


@pytest.mark.parametrize(("macs", "met"), [(50, True), (51, False)])
def test_formulas_have_no_tolerance(work: Work, macs: int, met: bool) -> None:
    found = results(work, {"decide": {"before": COST, "after": {**COST, "macs": macs}}})
    assert [(b.metric, b.met) for b in found.budget_met] == [("macs", met)]


def test_zeros_do_not_help_to_meet_a_bound_on_the_size(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        {"model": {"name": "resnet-8"}, "budget": {"size": 0.5}, "sparse": {"sparsity": 0.8}}
    )
    work = Work(Subject(recipe), RunDirectory.create(tmp_path, "it"), silent)
    decided = {"before": COST, "after": {**COST, "bytes": 24}}
    sparse = {"after": {**COST, "bytes": 6}, "memory": 24}
    found = results(work, {"decide": decided, "sparsify": sparse})
    assert [(b.metric, b.bound, b.value, b.met) for b in found.budget_met] == [("size", 20, 24, False)]
    sizes = {row.metric: (row.before.value, row.after.value) for row in found.rows if row.before.unit == "B"}
    assert (sizes["bytes"], sizes["encoded"]) == ((40, 24), (40, 6))

    lowered = {"after": {**COST, "bytes": 5}, "memory": 20}
    found = results(work, {"decide": decided, "sparsify": sparse, "export": lowered})
    assert [(b.value, b.met) for b in found.budget_met] == [(20, True)]


def test_what_a_method_noted_of_distances_to_patterns_is_kept(work: Work) -> None:
    log = [{"step": 0.0, "rho": 0.1, "primal": 0.5, "dual": float("inf")}, {"step": 8.0, "sparsity": 0.3}]
    found = results(work, {"sparsify": {"log": log[:0]}})
    assert found.distances == ()
    assert Results.from_dict({k: v for k, v in found.to_dict().items() if k != "distances"}) == found
    outcomes = {stage.name: {} for stage in STAGES}
    outcomes["sparsify"] = {"log": log}
    assert summary._distances(outcomes) == (Distance(0, 0.5, None),)


def test_the_way_of_the_accuracy_is_told_step_by_step(work: Work) -> None:
    metrics: dict[int, dict[str, float]] = defaultdict(dict, {0: {"accuracy": 0.7}, 1: {"accuracy": 0.8}})
    history = [{"epoch": i, "loss": 1.0 - i / 2, "metrics": metrics[i]} for i in range(2)]
    found = results(
        work,
        {"baseline": {"accuracy": 0.9}, "prune": {"accuracy": 0.1}, "finetune": {"history": history}},
    )
    assert [(p.label, p.accuracy) for p in found.trajectory] == [
        ("original", 0.9),
        ("pruned", 0.1),
        ("fine-tuned, epoch 1", 0.7),
        ("fine-tuned, epoch 2", 0.8),
    ]
    assert [(e.epoch, e.train_loss, e.val_accuracy) for e in found.history] == [(0, 1.0, 0.7), (1, 0.5, 0.8)]


def test_notes_of_all_stages_are_kept(work: Work) -> None:
    found = results(work, {"prepare": {"notes": ["a"]}, "export": {"notes": ["b"]}})
    assert found.notes == ("a", "b")


def test_costs_are_those_of_the_network_that_is_exported(work: Work) -> None:
    decided = {"before": COST, "after": {**COST, "macs": 40}}
    (entry,) = results(work, {"decide": decided, "export": {"after": {**COST, "macs": 45}}}).budget_met
    assert (entry.metric, entry.value) == ("macs", 45)


SPARSE = {
    "after": {**COST, "params": 4},
    "weights": {"tensors": 1, "weights": 8, "kept": 2, "numbers": 2},
    "accuracy": 0.3,
    "check": None,
}


def test_zeros_count_in_the_costs_and_are_reported(work: Work) -> None:
    found = results(
        work,
        {
            "decide": {"before": COST, "after": COST},
            "prune": {"accuracy": 0.8},
            "sparsify": SPARSE,
            "finetune": {"held": True, "history": []},
        },
    )
    params = found.row("params")
    assert params is not None
    assert params.after.value == 4
    assert found.sparsity == Sparsity(1, 8, 2, 2, held=True)
    assert [p.label for p in found.trajectory] == ["original", "pruned", "sparse"]
    assert Results.from_dict(found.to_dict()) == found


def test_every_size_that_was_taken_is_a_row(work: Work) -> None:
    sizes = {key: Measurement(7.0, "B").to_dict() for key in ("gzip", "stored", "stored_gzip")}
    both = {**measured(1.0), **sizes}
    found = results(work, {"measure": {"before": both, "after": both, "ratio": None}})
    metrics = [row.metric for row in found.rows]
    assert metrics == ["latency", "size", "size_gzip", "stored", "stored_gzip", "throughput", "peak_rss"]


def test_the_check_is_that_of_the_network_with_its_zeros(work: Work) -> None:
    check = {"exact": True, "agrees": True, "max_abs_error": 0.0, "max_rel_error": 0.0, "tolerance": 1e-4}
    checks = [
        {**check, "first_difference": None, "mixed": [], "max_abs_error": error} for error in (0.1, 0.2)
    ]
    done = {"prune": {"check": checks[0]}, "sparsify": {**SPARSE, "check": checks[1]}}
    found = results(work, {**done, "decide": {"before": COST, "after": COST}}).check
    assert found is not None
    assert found.max_abs_error == 0.2
