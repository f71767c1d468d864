"""Operators that work in place are replaced where that is certain to be the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from billhook.graph.capture import capture_program
from billhook.graph.functional import twin, without_in_place
from billhook.graph.fusions import as_layers
from billhook.graph.inputs import as_call
from tests.small_net import net

X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def reused(m: nn.Module, x: Tensor) -> Tensor:
    x = m.a(x)
    F.relu(x, inplace=True)
    return m.b(x) + x


def activation(m: nn.Module, x: Tensor) -> Tensor:
    x = m.a(x)
    return x + m.b(m.relu(x))  # the shortcut is what the activation has left


def statement(m: nn.Module, x: Tensor) -> Tensor:
    y = m.a(x)
    z = m.b(y)
    z += y
    y *= 2
    return z + y


def twice(m: nn.Module, x: Tensor) -> Tensor:
    x = m.a(x).relu_().mul_(2)
    x.add_(1)
    return m.b(x).sub_(x)


def view_read_later(m: nn.Module, x: Tensor) -> Tensor:
    x = m.a(x)
    half = x[:, :2]
    x.relu_()
    return m.b(x)[:, :2] + half


def view_changed(m: nn.Module, x: Tensor) -> Tensor:
    x = m.a(x)
    x[:, :2].relu_()
    return m.b(x)


def view_of_the_changed(m: nn.Module, x: Tensor) -> Tensor:
    x = m.a(x)
    x.relu_()
    return m.b(x.flatten(2).view(-1, 4, 4, 4))


def index_assigned(m: nn.Module, x: Tensor) -> Tensor:
    x = m.a(x)
    x[:, 0] = 0
    return m.b(x)


def argument(m: nn.Module, x: Tensor) -> Tensor:
    x.relu_()
    return m.b(m.a(x))


def noise(m: nn.Module, x: Tensor) -> Tensor:
    x = m.a(x)
    y = torch.zeros_like(x)
    y.copy_(x)
    return m.b(y) + x


RUNS = [
    reused, activation, statement, twice, view_read_later, view_changed, view_of_the_changed, index_assigned,
    argument, noise,
]  # fmt: skip


@pytest.mark.parametrize("run", RUNS, ids=lambda r: r.__name__)
def test_the_function_is_the_same(run: Callable[..., Tensor]) -> None:
    layers = {"a": nn.Conv2d(3, 4, 1), "b": nn.Conv2d(4, 4, 3, padding=1), "relu": nn.ReLU(inplace=True)}
    model = net(run, **layers)
    network = as_layers(model, as_call(X))
    for mode in (False, True):
        model.train(mode)
        network.train(mode)
        for x in (X, X[:1], torch.cat((X, -X))):
            torch.testing.assert_close(network(x.clone()), model(x.clone()))


def in_place(run: Callable[..., Tensor]) -> list[str]:
    """Return the operators that still work in place."""
    model = net(run, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1), relu=nn.ReLU(inplace=True))
    graph = without_in_place(capture_program(model, as_call(X)).graph)
    names = [str(getattr(n.target, "_opname", "")) for n in graph.nodes]
    return [n for n in names if n.endswith("_")]


@pytest.mark.parametrize("run", [reused, activation, statement, twice, view_of_the_changed])
def test_nothing_is_left_in_place_where_values_alone_are_read(run: Callable[..., Tensor]) -> None:
    assert in_place(run) == []


@pytest.mark.parametrize(
    ("run", "left"), [(view_read_later, "relu_"), (view_changed, "relu_"), (argument, "relu_")]
)
def test_operators_stay_where_others_see_the_change(run: Callable[..., Tensor], left: str) -> None:
    assert in_place(run) == [left]


def test_the_captured_graph_is_left_alone() -> None:
    model = net(reused, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1))
    graph = capture_program(model, as_call(X)).graph
    before = [str(n.target) for n in graph.nodes]
    without_in_place(graph)
    assert [str(n.target) for n in graph.nodes] == before


def test_twins_make_new_tensors() -> None:
    model = net(twice, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1))
    graph = capture_program(model, as_call(X)).graph
    found = {
        str(n.target): str(twin(n))
        for n in graph.nodes
        if str(n.target).partition(".")[2].startswith(("relu_", "mul_"))
    }
    assert found == {"aten.relu_.default": "aten.relu.default", "aten.mul_.Tensor": "aten.mul.Tensor"}
    out = next(n for n in graph.nodes if n.op == "output")
    with pytest.raises(AttributeError):
        twin(out)
