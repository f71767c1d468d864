"""Networks of plain layers: copies, records and observed shapes."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from billhook.graph import capture
from billhook.graph.fusions import as_layers
from billhook.graph.inputs import as_call
from billhook.graph.layers import LayeredNetwork, observe, take_after
from billhook.graph.rules._base import shape_of
from tests.networks import build
from tests.small_net import net


def made(name: str = "residual") -> tuple[LayeredNetwork, Tensor]:
    model, x = build(name)
    return as_layers(model, as_call(x)), x


def test_a_copy_is_equal_and_independent() -> None:
    network, x = made()
    network.record({"pass": "none", "at": "stem"})
    copied = copy.deepcopy(network)
    assert isinstance(copied, LayeredNetwork)
    assert torch.equal(copied(x), network(x))
    assert copied.fusions == network.fusions == ({"pass": "none", "at": "stem"},)
    assert [*copied.state_dict()] == [*network.state_dict()]
    assert capture(copied, x).fingerprint == capture(network, x).fingerprint
    with torch.no_grad():
        copied.get_parameter("stem.weight").zero_()
    copied.record({"pass": "none", "at": "head"})
    assert len(network.fusions) == 1
    assert network.get_parameter("stem.weight").abs().max() > 0
    copied.train()(x).sum().backward()
    assert network.get_parameter("head.weight").grad is None


def test_a_copy_has_the_modes_and_the_state_of_the_original() -> None:
    model = net(lambda m, x: m.n(m.c(x)) + m.table, n=nn.BatchNorm2d(2), c=nn.Conv2d(3, 2, 1))
    model.register_buffer("table", torch.ones(1), persistent=False)
    network = as_layers(model.train(), as_call(torch.randn(2, 3, 4, 4)))
    network.get_submodule("n").eval()
    copied = copy.deepcopy(copy.deepcopy(network))
    assert (copied.training, copied.get_submodule("n").training) == (True, False)
    assert [*copied.state_dict()] == [*network.state_dict()] == [*model.state_dict()]


def test_order_modes_and_momentum_are_taken_over() -> None:
    one = nn.ModuleDict({"b": nn.BatchNorm1d(2, momentum=None), "a": nn.Linear(2, 2), "x": nn.Linear(2, 2)})
    one["a"].eval()
    two = nn.ModuleDict({"new": nn.Linear(2, 2), "a": nn.Linear(2, 2), "b": nn.BatchNorm1d(2)})
    take_after(two, one)
    assert [*two] == ["b", "a", "new"]
    assert two["b"].momentum is None
    assert [m.training for m in two.values()] == [True, False, True]


def test_its_code_can_be_read() -> None:
    network, _ = made("plain")
    assert "conv1 = self.conv1(x)" in network.code
    assert "self.bn1(conv1)" in network.code


def test_every_value_has_its_shape_after_a_run() -> None:
    network, x = made()
    for node in network.graph.nodes:
        node.meta.pop("val", None)
    (output,) = observe(network, as_call(x[:1]))
    assert torch.equal(output, network(x[:1]))
    shapes = {n.name: shape_of(n) for n in network.graph.nodes if "val" in n.meta}
    assert (shapes["inner1"], shapes["project"], shapes["head"]) == ((1, 24, 8, 8), (1, 32, 4, 4), (1, 5))


def test_a_run_leaves_inputs_and_statistics_alone() -> None:
    model = net(lambda m, x: m.n(m.c(x.add_(1))), c=nn.Conv2d(3, 2, 1), n=nn.BatchNorm2d(2))
    x = torch.zeros(2, 3, 4, 4)
    network = as_layers(model, as_call(x))
    before = copy.deepcopy(network.state_dict())
    observe(network, as_call(x))
    assert not x.any()
    torch.testing.assert_close(network.state_dict(), before)
