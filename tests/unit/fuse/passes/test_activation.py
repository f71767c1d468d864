"""A layer and the activation of its output become one operator, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from billhook.deploy import export
from billhook.fuse.post_op import WithActivation
from billhook.graph import capture
from tests.small_net import net
from tests.unit.fuse.passes.folding import fold

X = torch.randn(2, 4, 8, 7)
Run = Callable[[Any, Tensor], Tensor]

ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "relu": (F.relu, "ReLU()"),
    "relu in place": (lambda x: x.relu_(), "ReLU()"),
    "relu6": (F.relu6, "ReLU6()"),
    "relu6 as hardtanh": (nn.ReLU6(), "ReLU6()"),
    "hardtanh": (lambda x: F.hardtanh(x, -2, 0.5), "Hardtanh(min_val=-2.0, max_val=0.5)"),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), "LeakyReLU(negative_slope=0.2)"),
    "silu": (F.silu, "SiLU()"),
    "hardswish": (F.hardswish, "Hardswish()"),
    "gelu": (F.gelu, "GELU(approximate='none')"),
    "gelu by tanh": (lambda x: F.gelu(x, approximate="tanh"), "GELU(approximate='tanh')"),
    "sigmoid": (torch.sigmoid, "Sigmoid()"),
    "tanh": (torch.tanh, "Tanh()"),
}


@pytest.mark.parametrize("case", ACTIVATIONS)
def test_an_activation_becomes_a_part_of_its_layer(case: str) -> None:
    function, text = ACTIVATIONS[case]
    made = fold(net(lambda m, x: function(m.conv(x)), conv=nn.Conv2d(4, 5, 3)), X, "activation")
    layer = made.network.get_submodule("conv")
    assert made.held == [("activation", "conv")]
    assert isinstance(layer, WithActivation)
    assert str(layer.activation) == text
    assert list(made.network.state_dict()) == ["conv.layer.weight", "conv.layer.bias"]
    assert [n.op for n in made.network.graph.nodes] == ["placeholder", "call_module", "output"]


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(7, 5), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4)],
    ids=lambda m: type(m).__name__,
)
def test_every_layer_takes_one_activation(layer: nn.Module) -> None:
    made = fold(net(lambda m, x: m.layer(x).relu().tanh(), layer=layer), X, "activation")
    assert made.held == [("activation", "layer")]
    assert [n.name for n in made.network.graph.nodes if n.op == "call_function"] == ["tanh"]


STAYS: dict[str, tuple[Run, str]] = {
    "other readers": (lambda m, x: m.conv(x).relu() + m.conv2(x) * (y := m.conv3(x)) + y.relu(), "conv3"),
    "called twice": (lambda m, x: m.conv3(m.conv3(x).relu()), "conv3"),
    "after a sum": (lambda m, x: (m.conv3(x) + x[:, :, 1:, 1:]).relu(), ""),
    "parametric": (lambda m, x: F.prelu(m.conv3(x), m.slope), ""),
}


@pytest.mark.parametrize("case", STAYS)
def test_others_stay(case: str) -> None:
    run, at = STAYS[case]
    layers = {n: nn.Conv2d(4, 4, 2) for n in ("conv", "conv2", "conv3")}
    made = fold(net(run, slope=nn.Parameter(torch.ones(4)), **layers), X, "activation")
    assert list(made.refused) == ([at] if at else [])
    assert at not in {place for _, place in made.held} - {""}


def test_a_layer_that_holds_others_stays_open() -> None:
    class Activated(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(4, 4, 3)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(super().forward(x).relu())

    assert fold(net(lambda m, x: m.a(x), a=Activated()), X, "activation").refused == {
        "a": "a holds other layers"
    }


def test_a_folded_network_is_captured_priced_and_exported_as_before(
    torchvision: ModuleType, tmp_path: Path
) -> None:
    model, x = torchvision.models.resnet18(num_classes=10), torch.randn(2, 3, 32, 32)
    made = fold(model, x, "batch_norm", "activation")
    # 20 convolutions and a linear layer, and what follows no layer: 8 sums, their activations, and these.
    operators = [n for n in made.network.graph.nodes if n.op in ("call_module", "call_function")]
    assert len(operators) == 21 + 8 + 8 + len(["max_pool2d", "adaptive_avg_pool2d", "flatten"])
    assert capture(made.network, x).costs.macs_by_layer() == capture(model, x).costs.macs_by_layer()
    export(made.network, x, tmp_path / "folded")  # compares the runtime with PyTorch
