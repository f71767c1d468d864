"""Which candidates are timed, and in which network's company."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from billhook.search.latencies.samples import spread, time_rows
from tests.search import problem, problem_of
from tests.unit.search.latencies.fake_rig import FakeRig


def test_samples_reach_from_the_smallest_to_the_largest_candidates() -> None:
    space = problem("residual").space
    rows = spread(space, np.random.default_rng(0), 40)
    assert ((rows >= 0) & (rows <= space.highest)).all()
    shares = np.sort((rows / np.maximum(space.highest, 1)).mean(1))
    assert shares[0] < 0.2 < 0.8 < shares[-1]
    assert np.diff(shares).max() < 0.2
    uneven = (rows / np.maximum(space.highest, 1)).std(1)
    assert uneven.mean() > 0.1
    again = spread(space, np.random.default_rng(0), 40)
    assert np.array_equal(rows, again)


def test_times_are_relative_to_the_original_of_the_same_turns() -> None:
    searched = problem("residual")
    rig = FakeRig(searched.space, lambda rows: 2e-3 * searched.space.fractions(rows).mean(1))
    rows = spread(searched.space, np.random.default_rng(0), 5)
    found = time_rows(searched, rows, rig)
    assert [list(genes) for genes in rig.asked] == rows.tolist()
    assert found.original == 2e-3
    assert found.ratios == pytest.approx(searched.space.fractions(rows).mean(1))


@pytest.mark.serial
@pytest.mark.usefixtures("engine")
def test_the_engine_runs_zeros_faster() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Conv2d(64, 5, 1)
    )
    searched = problem_of(
        model.eval(), torch.zeros(1, 3, 24, 24), backend="billhook", pattern="4x1|dense", channels=False
    )
    found = time_rows(searched, np.stack([searched.space.lowest, searched.space.highest]))
    assert found.ratios[0] < 0.5 < 0.8 < found.ratios[1] < 1.25
