from __future__ import annotations

import torch
from torch import nn

from billhook.criteria import Calibration, score
from billhook.criteria.apoz import Apoz
from tests.hand_made import group, member


def test_the_share_of_positions_that_are_not_zero() -> None:
    values = torch.tensor([[[0.0, 1.0, -2.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])
    assert Apoz().measure(values).tolist() == [[0.5, 0.0]]


def test_zeros_are_counted_behind_the_activation_function() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -1.0, 1.0]).view(3, 1, 1, 1))
        model[0].bias.copy_(torch.tensor([0.0, 0.0, -10.0]))
    units = group("0", 3, member("0.weight", 0, "out", 3), member("2.weight", 1, "in", 3))
    inputs = torch.tensor([1.0, 2.0, 3.0, -1.0]).view(1, 1, 2, 2)
    data = [(inputs, None), (inputs.repeat(2, 1, 1, 1), None)]
    found = score(Apoz(), model, [units], calibration=Calibration(data))["0"]
    assert found.tolist() == [0.75, 0.25, 0.0]


def test_a_unit_of_several_features_has_their_mean() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(4))
    units = group("0", 2, member("0.weight", 0, "out", 2, width=2), member("2.weight", 1, "in", 2, width=2))
    data = [(torch.tensor([[1.0, -1.0, 1.0, 1.0]]), None)]
    assert score(Apoz(), model, [units], calibration=Calibration(data))["0"].tolist() == [0.5, 1.0]
