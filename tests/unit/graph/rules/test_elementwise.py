"""Element-wise operators: what meets leaves together, whatever the broadcasting."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.small_net import Case, Net, case, check, net

X, X2 = torch.randn(2, 3), torch.randn(2, 3, 6, 6)

ACTIVATIONS = {
    "relu": F.relu, "relu in place": F.relu_, "relu6": F.relu6, "leaky": F.leaky_relu, "elu": F.elu, "celu": F.celu, "selu": F.selu,
    "gelu": F.gelu, "gelu tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu, "silu in place": lambda x: F.silu(x, True),
    "mish": F.mish, "sigmoid": torch.sigmoid, "hardsigmoid": F.hardsigmoid, "hardswish": F.hardswish, "hardtanh": F.hardtanh,
    "tanh": torch.tanh, "softplus": F.softplus, "softsign": F.softsign, "softshrink": F.softshrink, "hardshrink": F.hardshrink,
    "tanhshrink": F.tanhshrink, "threshold": lambda x: F.threshold(x, 0.1, 0.2), "logsigmoid": F.logsigmoid,
    "clamp": lambda x: x.clamp(-0.5, 0.5), "abs": torch.abs, "exp": lambda x: (x * 0.1).exp(), "sqrt": lambda x: (x.abs() + 1).sqrt(),
    "pow": lambda x: x**2, "sin": torch.sin, "erf": torch.erf, "where": lambda x: torch.where(x > 0, x, -0.1 * x),
    "masked fill": lambda x: x.masked_fill(x < 0, 0.3), "maximum": lambda x: torch.maximum(x, 0.5 * x), "rsub": lambda x: 1 - x,
    "lerp": lambda x: torch.lerp(x, x.sin(), 0.3), "rrelu": F.rrelu, "square relu": lambda x: F.relu(x).square(),
    "swish by hand": lambda x: x * x.sigmoid(), "h-swish by hand": lambda x: x * F.relu6(x + 3) / 6, "nan_to_num": torch.nan_to_num,
    "addcmul": lambda x: torch.addcmul(x, x.sin(), x.cos(), value=0.5),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_pass_channels_on(name: str) -> None:
    act = ACTIVATIONS[name]
    check(case(lambda: net(lambda m, x: m.b(act(m.a(x))), a=nn.Linear(3, 8), b=nn.Linear(8, 2)), X, a=8))


def pair(run: object, **more: object) -> Net:
    layers = {"a": nn.Conv2d(3, 8, 1), "b": nn.Conv2d(3, 8, 3, padding=1), "head": nn.Conv2d(8, 2, 1), **more}
    return net(run, **layers)  # type: ignore[arg-type]


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


CASES: dict[str, Case] = {
    "add": case(lambda: pair(lambda m, x: m.head(m.a(x) + m.b(x))), X2, a=8),
    "sub in place": case(lambda: pair(lambda m, x: m.head(m.a(x).sub_(m.b(x)))), X2, a=8),
    "mul": case(lambda: pair(lambda m, x: m.head(m.a(x) * m.b(x).sigmoid())), X2, a=8),
    "div": case(lambda: pair(lambda m, x: m.head(m.a(x) / (m.b(x).abs() + 1))), X2, a=8),
    "minimum": case(lambda: pair(lambda m, x: m.head(torch.minimum(m.a(x), m.b(x)))), X2, a=8),
    "max of two": case(lambda: pair(lambda m, x: m.head(torch.max(m.a(x), m.b(x)))), X2, a=8),
    "a gate per channel": case(lambda: pair(lambda m, x: m.head(m.a(x) * m.b(x).mean((2, 3), keepdim=True))), X2, a=8),
    "a gate per pixel": case(
        lambda: pair(lambda m, x: m.head(m.a(x) * m.gate(m.b(x)).sigmoid()), gate=nn.Conv2d(8, 1, 1)), X2,
        {"gate": "a single channel is spread over many"}, a=8, b=8,
    ),
    "a scale per channel": case(lambda: pair(lambda m, x: m.head(m.a(x) * m.s + m.b(x)), s=parameter(8, 1, 1)), X2, a=8),
    "one scale for all": case(lambda: pair(lambda m, x: m.head(m.a(x) * m.s + m.b(x)), s=parameter(1)), X2, a=8),
    "a number": case(lambda: pair(lambda m, x: m.head(2 * m.a(x) + m.b(x) / 3 - 1)), X2, a=8),
    "a map per pixel": case(lambda: pair(lambda m, x: m.head(m.a(x) + m.s + m.b(x)), s=parameter(6, 6)), X2, a=8),
    "a buffer per channel": case(lambda: pair(lambda m, x: m.head(m.a(x) - m.s + m.b(x)), s=torch.arange(8.0)[:, None, None]), X2, a=8),
    "the input": case(
        lambda: net(lambda m, x: m.head(m.b(m.a(x) + x).relu()), a=nn.Conv2d(3, 3, 1), b=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 1)), X2,
        {"a": "meets a dimension without channels"}, b=8,
    ),
    "prelu": case(lambda: pair(lambda m, x: m.head(m.p(m.a(x)) + m.b(x)), p=nn.PReLU(8)), X2, a=8),
    "prelu with one slope": case(lambda: pair(lambda m, x: m.head(m.p(m.a(x)) + m.b(x)), p=nn.PReLU()), X2, a=8),
    "glu": case(lambda: net(lambda m, x: m.b(F.glu(m.a(x), 1)), a=nn.Conv2d(3, 16, 1), b=nn.Conv2d(8, 2, 1)), X2, a=8),
    "where with a mask": case(lambda: pair(lambda m, x: m.head(torch.where(x[:, :1] > 0, m.a(x), m.b(x)))), X2, a=8),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_meets_leaves_together(name: str) -> None:
    check(CASES[name])


def test_the_slopes_of_prelu_follow() -> None:
    small = check(CASES["prelu"])
    assert small.p.weight.shape == (4,)
    assert small.p.num_parameters == 4
