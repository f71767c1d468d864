"""Candidates that are timed one by one: once each, also after JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from billhook.errors import InputError, StorageError
from billhook.search.latencies.measured import MeasuredLatency, MeasuredState
from billhook.search.latencies.model import read
from tests.search import problem, problem_of
from tests.unit.search.latencies.fake_rig import FakeRig


def test_candidates_are_timed_once() -> None:
    searched = problem("residual")
    rig = FakeRig(searched.space, lambda rows: 1e-3 * searched.space.fractions(rows).mean(1))
    model = MeasuredLatency(searched, rig=rig)
    rows = searched.space.random(np.random.default_rng(0), 3)
    times = model.of(np.concatenate([rows, rows]))
    assert times == pytest.approx(np.tile(rig.truth(rows), 2))
    assert model.original == 1e-3 == model.of(searched.space.highest)[0]
    assert len(rig.asked) == 4  # the lowest one tells how long the original takes

    again = MeasuredLatency.from_dict(searched, json.loads(json.dumps(model.to_dict())))
    assert np.array_equal(again.of(rows), model.of(rows)), "without a rig, nothing can be timed again"
    assert not again.monotone
    assert "measured end to end" in str(again.record)


def test_times_are_kept_as_soon_as_they_are_known(tmp_path: Path) -> None:
    searched = problem("residual")
    rows = searched.space.random(np.random.default_rng(0), 3)
    first = MeasuredLatency(
        searched, rig=FakeRig(searched.space, lambda r: searched.space.fractions(r).mean(1))
    )
    data = first.to_dict()
    first.keep_in(tmp_path)
    times = first.of(rows)

    slower = FakeRig(searched.space, lambda r: 0.5 + searched.space.fractions(r).mean(1))
    again = MeasuredLatency(searched, read(MeasuredState, data), slower)
    again.keep_in(tmp_path)
    assert np.array_equal(again.of(rows), times)
    assert not slower.asked
    (tmp_path / "latency.json").write_text("{}")
    with pytest.raises(StorageError, match="record"):
        again.keep_in(tmp_path)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="densities make no difference"):
        MeasuredLatency(problem("plain", pattern="4x1|dense"))
    searched = problem("plain")
    rig = FakeRig(searched.space, lambda rows: searched.space.fractions(rows).mean(1))
    data = MeasuredLatency(searched, rig=rig).to_dict()
    with pytest.raises(StorageError, match="other candidates"):
        MeasuredLatency.from_dict(problem("residual"), data)


@pytest.mark.serial
@pytest.mark.usefixtures("engine")
def test_the_rig_starts_when_it_is_needed_and_stops_when_told() -> None:
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 5, 3)).eval()
    searched = problem_of(model, torch.zeros(1, 3, 16, 16), backend="billhook", criterion="first")
    latency = MeasuredLatency(searched)
    low, high = latency.of(np.stack([searched.space.lowest, searched.space.highest]))
    assert low < high < 1e-2
    latency.close()
    assert latency.of(searched.space.highest - 1)[0] > low
    latency.close()
