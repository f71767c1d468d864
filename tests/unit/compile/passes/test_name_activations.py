"""Activations that are written out as arithmetic get their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from billhook.compile import reference
from billhook.compile.ir import Activate, Activation, Affine, Network, Port, Value
from billhook.compile.lower import lower
from billhook.compile.passes.name_activations import name_activations
from tests.unit.compile.exactness import Function, assert_equal, image, kinds


def named(function: Callable[..., Any], *layers: nn.Module) -> Network:
    """Return the network after the pass, which must compute the same to 1e-10, of NaN and ∞ too."""
    model = Function(function, *layers)
    before = lower(model, image())
    network = name_activations(before)
    assert_equal(network, model, image())
    x = image().double().numpy()
    x[0, 0, 0, :4] = [np.nan, np.inf, -np.inf, 0.0]
    (a,), (b,) = reference.run(before, [x]), reference.run(network, [x])
    scale = 1e-7 if "affine" in kinds(before) else 1e-10  # 1 / 6 was rounded to float32
    np.testing.assert_allclose(b, a, rtol=scale, atol=scale)
    return network


NAMED: dict[str, tuple[Callable[..., Any], str]] = {
    "silu": (lambda x: x * x.sigmoid(), "silu"),
    "silu, the other way": (lambda x: x.sigmoid() * x, "silu"),
    "hardswish of its gate": (lambda x: x * functional.hardsigmoid(x), "hardswish"),
    "hardswish of MobileNetV3": (lambda x: x * functional.relu6(x + 3) / 6, "hardswish"),
    "hardswish, divided first": (lambda x: x * (functional.relu6(x + 3) / 6), "hardswish"),
    "hardsigmoid": (lambda x: functional.relu6(x + 3) / 6, "hardsigmoid"),
    "hardsigmoid, multiplied": (lambda x: (x + 3).clamp(0, 6) * (1 / 6), "hardsigmoid"),
    "leaky": (lambda x: torch.maximum(x, x * 0.1), "leaky"),
}


@pytest.mark.parametrize("name", NAMED)
def test_one_operator_is_left(name: str) -> None:
    function, shape = NAMED[name]
    (op,) = named(function)
    assert (op.kind, op.activation.shape) == ("activate", shape)


def test_the_slope_is_kept() -> None:
    (op,) = named(lambda x: torch.maximum(x * 0.25, x))
    assert op.activation == Activation("leaky", 0.25)


def test_slopes_by_channel_take_two_operators() -> None:
    layer = nn.PReLU(4)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.25, -0.5, 1.0, 0.1]))
    assert kinds(named(lambda p, x: p(x), layer)) == ["affine", "binary"]


def slopes(*values: float) -> nn.Module:
    """Return a layer with these slopes."""
    layer = nn.PReLU(len(values))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(values))
    return layer


@pytest.mark.parametrize("values", [(0.25, 0.0, 1.0, 0.1), (0.25, 0.5, 1.5, 0.1)])
def test_slopes_for_which_the_largest_is_another_stay(values: tuple[float, ...]) -> None:
    assert len(list(named(lambda p, x: p(x), slopes(*values)))) == 4


STAY: dict[str, Callable[[Tensor], Tensor]] = {
    "another gate": lambda x: x * x.tanh(),
    "a gate of something else": lambda x: x * (x + 1).sigmoid(),
    "another bound": lambda x: (x + 3).clamp(0, 5) / 6,
    "another shift": lambda x: functional.relu6(x + 2) / 6,
    "another divisor": lambda x: functional.relu6(x + 3) / 5,
    "scaled before": lambda x: functional.relu6(2 * x + 3) / 6,
    "a slope above one": lambda x: torch.maximum(x, x * 1.5),
    "a negative slope": lambda x: torch.maximum(x, x * -0.5),
    "the smaller one": lambda x: torch.minimum(x, x * 0.5),
}


@pytest.mark.parametrize("name", STAY)
def test_what_is_no_such_activation_stays(name: str) -> None:
    assert len(list(named(STAY[name]))) > 1


def test_parts_that_are_read_stay() -> None:
    assert sorted(kinds(named(lambda x: x * (y := x.sigmoid()) + y))) == ["activate", "activate", "binary"]


def test_what_is_activated_before_it_is_clipped_stays() -> None:
    x, raised, clipped, made = (Value(name, 1, 2, 2) for name in "xrcm")
    one = np.ones(1, np.float32)
    ops = (
        Affine((x,), raised, one, 3 * one, activation=Activation("tanh")),
        Activate((raised,), clipped, activation=Activation("clip", 0.0, 6.0)),
        Affine((clipped,), made, one / 6, 0 * one),
    )
    network = Network(ops, (Port("x", x, (1, 2, 2)),), (Port("m", made, (1, 2, 2)),))
    assert kinds(name_activations(network)) == ["affine", "activate", "affine"]
