from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook import graph
from billhook.deploy import PlanLatency
from billhook.errors import MeasureError
from billhook.graph.patterns import parse_pattern
from billhook.graph.structure import Structure, viewed
from billhook.measure import Timing
from tests.unit.deploy.toy_networks import FixedBatch, convolutions

pytestmark = pytest.mark.serial

IMAGE = torch.randn(4, 3, 24, 24)
SHORT = Timing(rounds=3, seconds_per_round=0.03, warmup=0.02)


def _plans(model: nn.Module, width: int) -> tuple[graph.Plan, graph.Plan, graph.Plan]:
    """Return the plan that keeps all, one that keeps the first quarter, one that keeps the last quarter."""
    captured = graph.capture(model, IMAGE)
    first = np.arange(width) < width // 4
    keeps = (np.ones(width, dtype=bool), first, first[::-1].copy())
    whole, front, back = (
        graph.make_plan(captured, {g.id: k for g in captured.groups.prunable}) for k in keeps
    )
    return whole, front, back


def test_a_smaller_plan_is_faster_and_equal_widths_are_timed_once() -> None:
    model = convolutions(width=64, depth=3)
    whole, front, back = _plans(model, 64)
    with PlanLatency(model, IMAGE, timing=SHORT) as latency:
        folder = latency._folder
        assert folder.is_dir()
        small = latency(front)
        assert small.ratio < 0.7
        assert small.candidate < small.original
        assert latency(back) == small
        assert latency.exports == 1
        assert latency(whole).ratio > small.ratio
        confirmed = latency.confirm(front, Timing(2, 0.05))
        assert confirmed.ratio < 0.7
        assert latency(front) == confirmed
        assert latency.exports == 2
    assert not folder.exists()
    with pytest.raises(MeasureError, match="outside its with block"):
        latency(front)


def test_the_example_is_cut_to_the_batch_size_that_is_timed() -> None:
    with PlanLatency(convolutions(), IMAGE, timing=SHORT) as latency:
        original = latency._rig.original  # type: ignore[union-attr]
        assert original.manifest.inputs[0].shape == (1, 3, 24, 24)


def test_a_network_that_takes_no_other_batch_size_is_timed_with_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        caplog.at_level(logging.WARNING, "billhook"),
        PlanLatency(FixedBatch(), torch.randn(2, 4), timing=SHORT) as latency,
    ):
        assert latency._rig.original.manifest.batch == 2  # type: ignore[union-attr]
    assert "timing with the example's batch size 2" in caplog.text


def test_a_network_that_cannot_be_exported_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("broken")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(Exception, match="broken"), PlanLatency(Broken(), IMAGE):
        pass
    assert list(tmp_path.iterdir()) == []


def test_plans_with_other_zeros_are_other_plans() -> None:
    model = convolutions(width=16, depth=2)
    whole = graph.make_plan(graph.capture(model, IMAGE), {})
    layer, pattern = graph.capture(model, IMAGE).weights[1], parse_pattern("4x1")
    weight = viewed(dict(model.named_parameters())[layer.tensor].detach())
    sparse = [
        whole.with_patterns({layer.tensor: Structure(pattern, layer.shape, pattern.choose(weight * sign, s))})
        for s, sign in ((0.5, 1.0), (0.5, -1.0), (0.75, 1.0))
    ]
    with PlanLatency(model, IMAGE, timing=SHORT) as latency:
        samples = [latency(plan) for plan in (whole, *sparse)]
        assert latency.exports == 3
    assert samples[1] == samples[2]
