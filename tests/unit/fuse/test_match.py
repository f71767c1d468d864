"""Questions about a graph of plain layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

from billhook.fuse._match import (
    additions,
    alone,
    before,
    block_of,
    convolution_of,
    free_name,
    module_of,
    name_of,
    norm_of,
    shaped_like,
    source_of,
)
from billhook.graph.fusions import as_layers
from billhook.graph.inputs import as_call
from billhook.graph.layers import LayeredNetwork
from billhook.graph.rules._base import shape_of
from tests.residual import residual
from tests.small_net import net


def made(run: Callable[..., Tensor]) -> tuple[LayeredNetwork, dict[str, fx.Node]]:
    """Return a network with layers a, b (convolutions) and n (norm), and its nodes by name."""
    model = net(run, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1), n=nn.BatchNorm2d(4))
    network = as_layers(model, as_call(torch.zeros(2, 3, 4, 4)))
    return network, {n.name: n for n in network.graph.nodes}


def test_layers_and_operators_by_what_they_are() -> None:
    network, nodes = made(lambda m, x: m.n(m.b(m.a(x).relu())))
    assert convolution_of(network, nodes["a"]) is network.get_submodule("a")
    assert norm_of(network, nodes["n"]) is network.get_submodule("n")
    assert module_of(network, nodes["n"]) is network.get_submodule("n")
    for node in (nodes["n"], nodes["relu"], nodes["args_0"], None, 3):
        assert convolution_of(network, node) is None
    assert norm_of(network, nodes["a"]) is None
    assert (name_of(nodes["relu"]), name_of(nodes["a"]), name_of(nodes["args_0"])) == ("relu", "", "")
    assert source_of(nodes["b"]) is nodes["relu"]


def test_a_layer_that_is_called_twice_is_not_alone() -> None:
    network, nodes = made(lambda m, x: m.b(m.b(m.a(x))))
    assert alone(network, nodes["a"])
    assert not alone(network, nodes["b"])


def test_what_is_computed_from_what() -> None:
    _, nodes = made(lambda m, x: m.n(m.b((y := m.a(x)).relu())) + y.sigmoid())
    assert before(nodes["n"], nodes["a"])
    assert before(nodes["add"], nodes["args_0"])
    assert not before(nodes["sigmoid"], nodes["relu"])
    assert not before(nodes["a"], nodes["a"])


def test_sums_of_two_values_of_one_shape() -> None:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        y = m.a(x)
        z = m.b(y) + y  # this one
        z = torch.add(z, y, alpha=2) + 1
        z = z + m.n.weight.view(1, -1, 1, 1)
        return z.mean((2, 3)) + y.mean((2, 3))

    network, nodes = made(run)
    assert [(a.name, b.name) for _, a, b in additions(network)] == [("b", "a")]
    assert next(additions(network))[0] is nodes["add"]


def test_a_statement_is_a_sum_too() -> None:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        y = m.a(x)
        z = m.b(y)
        z += y
        return z

    assert [(a.name, b.name) for _, a, b in additions(made(run)[0])] == [("b", "a")]


def test_names_of_blocks_and_free_names() -> None:
    network = as_layers(*_as_arguments("basic"))
    (first, *_) = [node for node, _, _ in additions(network)]
    assert block_of(first) == "layer1.0"
    assert free_name(network, "layer1.0.copies") == "layer1.0.copies"
    assert free_name(network, "layer1.0.conv1") == "layer1.0.conv1_2"
    assert free_name(network, "stem.weight") == "stem.weight_2"
    assert free_name(network, "layer1") == "layer1_2"


def _as_arguments(name: str) -> tuple[nn.Module, tuple[tuple[Tensor], dict[str, Tensor]]]:
    model, x = residual(name)
    return model, ((x,), {})


def test_new_values_have_shapes() -> None:
    network, nodes = made(lambda m, x: m.b(m.a(x)))
    with network.graph.inserting_after(nodes["a"]):
        new = network.graph.call_function(torch.ops.aten.relu.default, (nodes["a"],))
    assert shape_of(shaped_like(new, nodes["a"]))[1:] == (4, 4, 4)
