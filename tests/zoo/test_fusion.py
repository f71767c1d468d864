"""Known networks are fused, half of what may leave then leaves, and the result is lowered."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from billhook.fuse import Fusion, fuse, lower
from billhook.fuse.lower import has_copies
from billhook.graph import apply, capture, verify
from billhook.graph.layers import LayeredNetwork
from tests.fused import distance, operators, random_plan
from tests.oracle import randomize

SHORTCUTS = Fusion(operators=("add_identity", "add_projection"))
TORCHVISION = {
    "resnet18": 8, "resnet34": 16, "resnet50": 16, "resnext50_32x4d": 16, "mobilenet_v2": 10,
    "densenet121": 0, "regnet_y_400mf": 16, "efficientnet_b0": 9,
}  # fmt: skip
"""Networks, and how many shortcuts they have."""
TIMM = {"resnetv2_18": 8}


def assert_fused_pruned_and_lowered(model: nn.Module, x: Tensor, shortcuts: int) -> None:
    model = randomize(model.eval(), 0, x)
    made = fuse(model, x, SHORTCUTS)
    assert sum(name == "shortcut" for name, _ in made.held) == shortcuts, str(made)
    assert distance(model, made.network, x) <= 1e-4
    graph, original = capture(made.network, x), fuse(model, x, Fusion(level="none")).network
    assert graph.costs.cost().macs == capture(model, x).costs.cost().macs
    assert operators(lower(made.network, x, fold=())) == operators(original)

    plan = random_plan(graph, share=0.5, empty=0.2)
    small = apply(made.network, plan)
    assert isinstance(small, LayeredNetwork)
    assert verify(made.network, plan, x, small=small).agrees
    for form in ("pointwise", "gather", "concat"):
        lowered = lower(small, x, forms=form)
        assert not has_copies(lowered)
        assert distance(small, lowered, x) <= 1e-4


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("name", TORCHVISION)
def test_a_network_of_torchvision(name: str, torchvision: ModuleType) -> None:
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = getattr(torchvision.models, name)(weights=None, num_classes=10)
    assert_fused_pruned_and_lowered(model, x, TORCHVISION[name])


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("name", TIMM)
def test_a_network_of_timm(name: str, timm: ModuleType) -> None:
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert_fused_pruned_and_lowered(timm.create_model(name, num_classes=10), x, TIMM[name])


@pytest.mark.zoo
def test_a_small_network_of_torchvision(torchvision: ModuleType) -> None:
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=10)
    assert_fused_pruned_and_lowered(model, x, 4)
