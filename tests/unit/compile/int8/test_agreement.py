"""An engine that computes something else in 8 bits is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from billhook.compile.compiler import assemble, prepared
from billhook.compile.int8.agreement import check_agreement
from billhook.compile.int8.calibration import Calibration
from billhook.compile.ir import RELU, Convolution, Linear, Network, Op
from billhook.errors import ExportError

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture(scope="module")
def data() -> torch.Tensor:
    """Return images."""
    return torch.randn(4, 3, 9, 7, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network(data: torch.Tensor) -> Network:
    """Return two convolutions and a linear layer in 8 bits."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.Flatten(), nn.Linear(60, 4)]
    model = nn.Sequential(*layers).eval()
    return prepared(model, data, check=False, calibration=Calibration([data])).network


def changed(network: Network, kind: type[Op], change: Callable[[Op], Op]) -> Network:
    """Return the network with other operators of a kind."""
    return network.with_ops([change(op) if isinstance(op, kind) else op for op in network])


def test_the_engine_agrees(network: Network, data: torch.Tensor) -> None:
    check_agreement(network, assemble(network).file, {}, data)


def test_a_file_made_from_another_network_does_not(network: Network, data: torch.Tensor) -> None:
    other = changed(network, Linear, lambda op: replace(op, bias=op.bias + 1))
    with pytest.raises(ExportError, match=r"output 'output' of the engine"):
        check_agreement(network, assemble(other).file, {}, data)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(3, 8, 3), nn.AvgPool2d((2, 1)), nn.Conv2d(8, 4, 1)],
        [nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(4, 4, 1)],
    ],
    ids=["mean", "resized"],
)
def test_numbers_halfway_between_two_of_the_grid_may_become_either(layers: list[nn.Module]) -> None:
    torch.manual_seed(0)
    images = torch.randn(8, 3, 18, 18)
    first = layers[0].get_parameter
    with torch.no_grad():
        first("weight")[:2] = 0  # the largest and the smallest number, and so one grid before and after
        first("bias")[:2] = torch.tensor([20.0, -20.0])
    made = prepared(nn.Sequential(*layers).eval(), images, calibration=Calibration([images], "minmax"))
    check_agreement(made.network, assemble(made.network).file, {}, images)


def test_what_cancels_may_be_as_far_off_as_what_it_is_made_of() -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 3, 18, 18) + 5
    layers = [nn.InstanceNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)]
    made = prepared(nn.Sequential(*layers).eval(), images, calibration=Calibration([images]))
    check_agreement(made.network, assemble(made.network).file, {}, images)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (Convolution, lambda op: replace(op, activation=RELU)),
        (Convolution, lambda op: replace(op, bias=op.bias + 2 * op.output.quantised.scale)),
        (Linear, lambda op: replace(op, bias=1.1 * op.bias)),
    ],
)
def test_the_operator_that_differs_is_named(
    network: Network,
    data: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Op],
    change: Callable[[Op], Op],
) -> None:
    real = assemble

    def broken(shown: Network, tiles: object) -> object:
        return real(changed(shown, kind, change))

    monkeypatch.setattr("billhook.compile.int8.agreement.assemble", broken)
    with pytest.raises(
        ExportError, match=f"{kind.__name__.lower()} '[a-z_0-9]+' of the engine differs in 8 bits"
    ):
        check_agreement(network, assemble(network).file, {}, data)
