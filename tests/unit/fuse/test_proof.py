"""What is certain about a value: nothing that is not written in the graph."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from billhook.fuse.copies import ChannelCopy
from billhook.fuse.proof import nonnegative, ranges, unchanged_by
from billhook.graph.fusions import as_layers
from billhook.graph.inputs import as_call
from billhook.graph.layers import LayeredNetwork
from tests.small_net import net

X = torch.randn(2, 4, 6, 6)


def last(run: Callable[..., Tensor], **layers: nn.Module) -> tuple[LayeredNetwork, fx.Node]:
    """Return a network of a convolution and `run`, and the value that it returns."""
    model = net(lambda m, x: run(m, m.conv(x)), conv=nn.Conv2d(4, 4, 1), **layers)
    network = as_layers(model, as_call(X))
    output = next(n for n in network.graph.nodes if n.op == "output")
    return network, output.all_input_nodes[0]


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (lambda m, x: x.relu(), (0, inf)),
        (lambda m, x: F.relu_(x), (0, inf)),
        (lambda m, x: F.relu6(x), (0, 6)),
        (lambda m, x: F.hardtanh(x, 0, 2), (0, 2)),
        (lambda m, x: F.hardtanh(x), (-1, 1)),
        (lambda m, x: x.clamp(min=0.5), (0.5, inf)),
        (lambda m, x: x.clamp(0, 3).clamp_max(2), (0, 2)),
        (lambda m, x: x.sigmoid(), (0, 1)),
        (lambda m, x: F.hardsigmoid(x), (0, 1)),
        (lambda m, x: x.softmax(1), (0, 1)),
        (lambda m, x: F.softplus(x), (0, inf)),
        (lambda m, x: x.exp(), (0, inf)),
        (lambda m, x: x.abs(), (0, inf)),
        (lambda m, x: x**2, (0, inf)),
        (lambda m, x: x * x, (0, inf)),
        (lambda m, x: F.max_pool2d(x.relu(), 3, 1, 1), (0, inf)),
        (lambda m, x: F.avg_pool2d(F.relu6(x), 3, 1, 1), (0, 6)),
        (lambda m, x: F.avg_pool2d(x.clamp(1, 2), 3, 1, 1), (0, 2)),
        (lambda m, x: F.adaptive_avg_pool2d(F.relu6(x), 2), (0, 6)),
        (lambda m, x: F.pad(x.relu(), (1, 1, 1, 1)), (0, inf)),
        (lambda m, x: F.pad(x.relu(), (1, 1, 1, 1), value=-2.0), (-2, inf)),
        (lambda m, x: torch.cat((x.relu(), x.sigmoid())), (0, inf)),
        (lambda m, x: torch.cat((x.relu(), x)), (-inf, inf)),
        (lambda m, x: F.relu6(x) + x.sigmoid() + 1, (1, 8)),
        (lambda m, x: x.relu() * x.sigmoid(), (0, inf)),
        (lambda m, x: x.relu() - x.sigmoid(), (-inf, inf)),
        (lambda m, x: F.relu6(x) / 2, (0, 3)),
        (lambda m, x: x.relu().chunk(2, 1)[1], (0, inf)),
        (lambda m, x: F.silu(x.relu()), (0, inf)),
        (lambda m, x: F.silu(x), (-inf, inf)),
        (lambda m, x: F.leaky_relu(x.relu()), (0, inf)),
        (lambda m, x: F.leaky_relu(x), (-inf, inf)),
        (lambda m, x: m.drop(F.relu6(x)), (0, 12)),
        (lambda m, x: m.norm(x.relu()), (-inf, inf)),
        (lambda m, x: m.conv(x.relu()), (-inf, inf)),
        (lambda m, x: x, (-inf, inf)),
    ],
)
def test_bounds_of_a_value(run: Callable[..., Tensor], expected: tuple[float, float]) -> None:
    layers = {"drop": nn.Dropout(0.5), "norm": nn.BatchNorm2d(4)}
    network, value = last(run, **layers)
    assert ranges(network)[value] == expected
    assert (nonnegative(network, value) is None) == (expected[0] >= 0)


def test_the_reason_names_what_made_the_value() -> None:
    network, value = last(lambda m, x: F.max_pool2d(m.norm(x), 2), norm=nn.BatchNorm2d(4))
    assert nonnegative(network, value) == "the result of 'norm' may be negative"
    network, value = last(lambda m, x: x.tanh())
    assert nonnegative(network, value) == "the result of 'tanh' may be negative"
    network = as_layers(net(lambda m, x: m.conv(x), conv=nn.Conv2d(4, 4, 1)), as_call(X))
    assert nonnegative(network, next(iter(network.graph.nodes))) == "the network's input may be negative"


def test_copies_of_channels_are_values_or_zero() -> None:
    network, value = last(lambda m, x: x.clamp(1, 2))
    network.add_submodule("copies", ChannelCopy(torch.tensor([0, -1]), torch.ones(4)))
    with network.graph.inserting_after(value):
        copies = network.graph.call_module("copies", (value,))
    assert ranges(network)[copies] == (0, 2)


def test_nothing_is_certain_while_an_operator_works_in_place() -> None:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = x.relu()
        view = x[:, :2]
        view.sub_(1)
        return x

    network, value = last(run)
    assert ranges(network)[value] == (-inf, inf)
    assert "works in place" in str(nonnegative(network, value))


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (lambda m, x: x.relu(), (0, inf)),
        (lambda m, x: F.relu6(x), (0, 6)),
        (lambda m, x: F.hardtanh(x, -2, 2), (-2, 2)),
        (lambda m, x: x.clamp(max=1), (-inf, 1)),
        (lambda m, x: F.leaky_relu(x), (0, inf)),
        (lambda m, x: F.elu(x), (0, inf)),
        (lambda m, x: F.selu(x), None),
        (lambda m, x: F.silu(x), None),
        (lambda m, x: m.conv(x), None),
    ],
)
def test_what_an_activation_leaves_as_it_is(
    run: Callable[..., Tensor], expected: tuple[float, float] | None
) -> None:
    assert unchanged_by(last(run)[1]) == expected
