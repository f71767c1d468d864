from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from billhook import Budget
from billhook.graph import make_plan
from billhook.methods import Problem, _latency_factors
from billhook.methods._latency_factors import latency_factors
from tests.networks import build


def test_latency_factors_are_time_saved_over_macs_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = build("residual")
    problem = Problem(model, x, Budget(latency=0.6), round_to=1)
    full = problem.graph.costs.cost(None).macs

    @dataclass(frozen=True)
    class Sample:
        candidate: float
        original: float = 1.0

    @contextmanager
    def timing(problem: Problem) -> Iterator[Callable[..., Sample]]:
        def measure(keep: Mapping[str, np.ndarray], sure: bool) -> Sample:
            ((group, units),) = keep.items()
            assert units.sum() == len(units) // 2
            left = problem.graph.costs.cost(make_plan(problem.graph, keep)).macs / full
            return Sample(1 - (1 - left) * (3.0 if group == "stem" else 0.5))

        yield measure

    monkeypatch.setattr(_latency_factors, "timing", timing)
    factors = dict(zip([g.id for g in problem.groups], latency_factors(problem), strict=True))
    assert factors.pop("stem") == pytest.approx(3.0)
    assert all(f == pytest.approx(0.5) for f in factors.values())
