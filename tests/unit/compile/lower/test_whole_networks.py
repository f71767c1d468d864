"""Whole networks are lowered exactly: those of the zoo, and those with one hard construct each."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from billhook.models import build as build_model
from tests import networks
from tests.unit.compile.exactness import image, lowered

ZOO = {
    "densenet-40": {"growth": 4, "stem": 8},
    "lenet-5": {"in_channels": 1},
    "mobilenet-v2": {},
    "resnet-20": {},
    "resnet-8": {},
    "small-vgg": {},
    "vgg-16-bn": {},
}


def settled(model: nn.Module) -> nn.Module:
    """Return the model in eval mode with statistics and scales that do not hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 1.5),
            ):
                assert tensor is not None
                nn.init.uniform_(tensor, low, high, generator=generator)
    return model.eval()


@pytest.mark.parametrize("name", ZOO)
def test_networks_of_the_zoo_are_lowered_exactly(name: str) -> None:
    torch.manual_seed(0)
    model = settled(build_model(name, **ZOO[name]))
    size = (1, 28) if name == "lenet-5" else (3, 32)
    lowered(model, image(size[0], size[1], size[1]))


@pytest.mark.parametrize("name", sorted(set(networks.NETWORKS) - {"attention"}))
def test_networks_with_a_hard_construct_are_lowered_exactly(name: str) -> None:
    model, inputs = networks.build(name)
    lowered(model, inputs)
