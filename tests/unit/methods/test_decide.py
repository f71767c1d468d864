from __future__ import annotations

import importlib
import logging
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch

from billhook.allocate.budget import Budget
from billhook.allocate.families.efficient import Efficient
from billhook.allocate.families.uniform import Uniform
from billhook.errors import BudgetError
from billhook.graph import Plan, make_plan
from billhook.measure.rounds import Timing
from billhook.methods import Problem, prune
from billhook.methods._decide import decide, formula_limits, keep_within, with_units
from billhook.train import FitConfig
from tests.networks import batches, build
from tests.residual import residual, residual_graph


@dataclass(frozen=True)
class Sample:
    candidate: float
    original: float


class FakeRig:
    """Latency in proportion to the channels that stay; remembers whether it was left properly."""

    made: ClassVar[list[FakeRig]] = []

    def __init__(self, model: object, example_inputs: object, *, backend: str, timing: Timing) -> None:
        self.backend, self.threads, self.open, self.confirmed = backend, timing.threads, False, 0
        self.made.append(self)

    def __enter__(self) -> FakeRig:
        self.open = True
        return self

    def __exit__(self, *exc: object) -> None:
        self.open = False

    def __call__(self, plan: Plan) -> Sample:
        assert self.open
        kept = sum(plan.counts.values()) / sum(len(k) for k in plan.keep.values())
        return Sample(0.004 * (0.1 + 0.9 * kept), 0.004)

    def confirm(self, plan: Plan) -> Sample:
        self.confirmed += 1
        return self(plan)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> type[FakeRig]:
    importlib.import_module("billhook.deploy.backends.onnxruntime_")  # rounding asks for it
    deploy = ModuleType("billhook.deploy")
    deploy.PlanLatency = FakeRig
    monkeypatch.setitem(sys.modules, "billhook.deploy", deploy)
    monkeypatch.setattr(FakeRig, "made", [])
    return FakeRig


def _decide(budget: Budget, **changes: Any) -> Plan:
    model, inputs = build("residual")
    problem = Problem(model, inputs, budget, **changes)
    scores = {g.id: torch.arange(g.size, dtype=torch.float32) for g in problem.groups}
    return decide(problem, scores, Uniform())


def test_the_highest_scores_stay() -> None:
    plan = _decide(Budget(macs=0.5), round_to=1)
    for keep in plan.keep.values():
        assert keep[-int(keep.sum()) :].all()


def test_a_latency_bound_is_measured_on_the_backend(
    rig: type[FakeRig], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "billhook"):
        plan = _decide(Budget(latency=0.6), round_to=1, threads=2)
    assert "of the original (confirmed)" in caplog.text
    assert plan.made_by["reached"]["latency"] <= 0.6 * plan.made_by["original"]["latency"]
    assert plan.made_by["measured"] >= 1
    (used,) = rig.made
    assert used.backend == "onnxruntime"
    assert used.threads == 2
    assert used.confirmed >= 1
    assert not used.open


def test_the_rig_is_closed_when_the_bound_cannot_be_met(rig: type[FakeRig]) -> None:
    with pytest.raises(BudgetError, match="latency"):
        _decide(Budget(latency="1us"))
    assert not rig.made[0].open


def test_no_runtime_is_touched_without_a_latency_bound(rig: type[FakeRig]) -> None:
    _decide(Budget(macs=0.5))
    assert rig.made == []


def _problem(budget: Budget, **changes: Any) -> tuple[Problem, dict[str, torch.Tensor]]:
    problem = Problem(*build("residual"), budget, **changes)
    return problem, {g.id: torch.arange(g.size, dtype=torch.float32) for g in problem.groups}


def test_the_way_to_the_budget_begins_with_everything_and_ends_within_all_bounds() -> None:
    problem, scores = _problem(Budget(macs=0.5, params=0.6), round_to=1)
    limits = formula_limits(problem, decide(problem, scores, Uniform()))
    whole = problem.graph.costs.cost()
    assert limits == {"macs": 0.5 * whole.macs, "params": 0.6 * whole.params}
    steps = [keep_within(problem, scores, Uniform(), limits, progress=p) for p in (0.0, 0.3, 0.6, 1.0)]
    kept = [sum(int(k.sum()) for k in keep.values()) for keep in steps]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] == sum(g.size for g in problem.groups)
    cost = problem.graph.costs.cost(make_plan(problem.graph, steps[-1]))
    assert cost.macs <= limits["macs"]
    assert cost.params <= limits["params"]


def test_a_latency_bound_stands_as_the_macs_of_a_network_that_met_it(rig: type[FakeRig]) -> None:
    problem, scores = _problem(Budget(latency=0.6, params=0.9), round_to=1)
    limits = formula_limits(problem, decide(problem, scores, Uniform()))
    assert set(limits) == {"macs", "params"}
    assert 0 < limits["macs"] < problem.graph.costs.cost().macs
    measured = len(rig.made)
    keep = keep_within(problem, scores, Uniform(), limits)
    assert len(rig.made) == measured  # nothing is timed while a network trains
    assert problem.graph.costs.cost(make_plan(problem.graph, keep)).macs <= limits["macs"]


def test_a_method_that_trains_meets_a_latency_bound(rig: type[FakeRig]) -> None:
    model, inputs = build("residual")
    for method in ("gator", "soft"):
        plan = prune(
            model,
            inputs,
            method=method,
            budget=Budget(latency=0.7),
            options={"cost": "macs"} if method == "gator" else {},
            data=batches("residual", 4),
            round_to=1,
            training=FitConfig(epochs=3, lr=0.01, precision="32-true"),
        )
        assert plan.made_by["reached"]["latency"] <= 0.7 * plan.made_by["original"]["latency"]


def test_other_units_of_the_same_widths_keep_the_record() -> None:
    problem, scores = _problem(Budget(macs=0.5), round_to=1)
    plan = decide(problem, scores, Uniform())
    other = with_units(problem, plan, {name: keep[::-1] for name, keep in plan.keep.items()})
    assert other.counts == plan.counts
    assert other.made_by == plan.made_by
    assert other != plan


def test_branches_leave_only_for_methods_that_let_them() -> None:
    model, x = residual("basic")
    problem = Problem(model, x, Budget(macs=0.25), round_to=1, captured=residual_graph("basic"))
    scores = {g.id: torch.ones(g.size) for g in problem.groups}
    allocator = Efficient(overhead=1e6)
    left = decide(problem, scores, allocator, branches=problem.graph.branches)
    assert problem.graph.dropped(left)
    assert left.made_by["overhead"] == 1e6
    assert all(keep.any() for keep in decide(problem, scores, allocator).keep.values())
    limits = {"macs": left.made_by["reached"]["macs"]}
    keep = keep_within(problem, scores, allocator, limits, branches=problem.graph.branches)
    assert {name for name, units in keep.items() if not units.any()} == {
        g for b in problem.graph.dropped(left) for g in b.groups
    }
    assert "overhead" not in decide(problem, scores, Uniform()).made_by
