"""Whole networks in 8 bits, in the reference."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from billhook.compile import reference
from billhook.compile.int8.calibration import Calibration, calibrate
from billhook.compile.int8.quantise import quantise
from billhook.compile.lower import lower
from billhook.compile.passes import INTO_ENGINE, run_passes
from billhook.models import resolve
from tests.unit.compile.int8.test_quantise import assert_well_formed

OWN = ("resnet-20", "resnet-56", "mobilenet-v2", "small-vgg", "densenet-40", "lenet-5")
TORCHVISION = ("shufflenet_v2_x0_5", "densenet121", "efficientnet_b0", "squeezenet1_1", "googlenet")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def check(model: nn.Module, size: int) -> tuple[int, int]:
    """Check a network with random weights; return how many layers compute in integers, and in float32."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    x = torch.randn(4, 3, size, size)
    network = run_passes(lower(model.eval(), x), check=False)
    ranges = calibrate(network, Calibration([x]))
    found = quantise(network, ranges, correct_bias=True).network
    assert_well_formed(found)
    expected, made = (reference.run(n, [x.numpy()])[0] for n in (network, found))
    signal, noise = (expected**2).sum(), ((made - expected) ** 2).sum()
    assert signal > 300 * noise  # 25 dB
    into = run_passes(found, check=False, passes=INTO_ENGINE)
    np.testing.assert_allclose(reference.run(into, [x.numpy()])[0], made, atol=1e-6 * np.abs(made).max())
    layers = [op.weight_scale is not None for op in found if hasattr(op, "weight_scale")]
    return sum(layers), len(layers) - sum(layers)


@pytest.mark.parametrize("name", OWN)
def test_every_layer_of_our_networks_computes_in_integers(name: str) -> None:
    layers, left = check(resolve(name), 28 if name == "lenet-5" else 16)
    assert left == 0
    assert layers >= 4


@pytest.mark.parametrize("name", TORCHVISION)
def test_every_layer_of_torchvision_s_networks_computes_in_integers(
    name: str, torchvision: ModuleType
) -> None:
    options = {"init_weights": True} if name == "googlenet" else {}
    layers, left = check(torchvision.models.get_model(name, weights=None, **options), 64)
    assert left == 0
    assert layers > 20
