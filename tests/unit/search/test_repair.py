"""Least squares makes up for what has left, as far as anything can."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from billhook.criteria import Calibration
from billhook.graph import capture
from billhook.search.repair import Reconstruction


def _network() -> tuple[nn.Sequential, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(256, 6)


def _reconstruction(model: nn.Sequential, data: torch.Tensor, damping: float = 1e-9) -> Reconstruction:
    groups = capture(model, data[:1]).groups.prunable
    calibration = Calibration([(data, torch.zeros(len(data), dtype=torch.long))])
    return Reconstruction(model, groups, calibration, damping=damping)


def test_the_copy_of_a_channel_takes_over_its_weights() -> None:
    model, data = _network()
    with torch.no_grad():
        model[0].weight[5], model[0].bias[5] = model[0].weight[2], model[0].bias[2]
    keep = {"0": np.arange(8) != 5}
    new = _reconstruction(model, data).tensors(keep)["2.weight"]
    old = model[2].weight.detach()
    torch.testing.assert_close(new[:, 2], old[:, 2] + old[:, 5], rtol=1e-3, atol=1e-3)
    others = [0, 1, 3, 4, 6, 7]
    torch.testing.assert_close(new[:, others], old[:, others], rtol=1e-3, atol=1e-3)
    assert not new[:, 5].any()


def test_where_nothing_leaves_nothing_changes() -> None:
    model, data = _network()
    assert _reconstruction(model, data).tensors({"0": np.ones(8, dtype=bool)}) == {}


def test_it_is_the_least_squares_solution() -> None:
    model, data = _network()
    keep = np.array([True, False, True, True, False, True, True, False])
    new = _reconstruction(model, data).tensors({"0": keep})
    with torch.no_grad():
        hidden = model[1](model[0](data))
        rows = torch.cat([hidden[:, torch.from_numpy(keep)], torch.ones(len(data), 1)], 1)
        expected = torch.linalg.lstsq(rows.double(), model(data).double()).solution.float()
    torch.testing.assert_close(
        new["2.weight"][:, torch.from_numpy(keep)], expected[:-1].T, rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(new["2.bias"], expected[-1], rtol=1e-3, atol=1e-3)


def test_a_solution_is_remembered() -> None:
    model, data = _network()
    made = _reconstruction(model, data)
    keep = {"0": np.arange(8) < 4}
    assert made.tensors(keep)["2.weight"] is made.tensors(keep)["2.weight"]
