"""A latency budget on the real runtime: slow, and alone on the machine."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from billhook.allocate.budget import Budget
from billhook.deploy import PlanLatency
from billhook.graph import cost
from billhook.methods import prune

pytestmark = [pytest.mark.slow, pytest.mark.serial]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for channels_in, channels_out in ((3, 64), (64, 64), (64, 128), (128, 128)):
        layers += [nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)).eval()


def test_a_second_measurement_confirms_the_bound(model: nn.Module) -> None:
    inputs = torch.randn(1, 3, 32, 32)
    plan = prune(model, inputs, budget=Budget(latency=0.5, macs=0.6))
    reached = plan.made_by["reached"]["latency"] / plan.made_by["original"]["latency"]
    assert 0.35 <= reached <= 0.5
    assert plan.made_by["measured"] <= 8
    assert cost(model, inputs, plan).macs <= 0.6 * cost(model, inputs).macs
    with PlanLatency(model, inputs) as latency:
        assert latency.confirm(plan).ratio <= 0.5 * 1.05
