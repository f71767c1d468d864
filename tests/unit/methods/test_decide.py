from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch

from billhook.allocate.budget import Budget
from billhook.allocate.families.uniform import Uniform
from billhook.errors import BudgetError
from billhook.graph import Plan
from billhook.measure.rounds import Timing
from billhook.methods import Problem
from billhook.methods._decide import decide
from tests.networks import build


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
