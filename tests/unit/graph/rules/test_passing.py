"""Operators that change no channel, and constants made in forward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.small_net import Case, Net, case, check, net

X = torch.randn(2, 3)


def wide(run: object, left: int = 8, **more: object) -> Net:
    return net(lambda m, x: m.b(run(m, m.a(x))), a=nn.Linear(3, 8), b=nn.Linear(left, 2), **more)  # type: ignore[operator]


def ones_like_width(m: Net, x: Tensor) -> Tensor:
    return torch.cat((x, torch.ones(x.shape[0], 4)), 1)


CASES: dict[str, Case] = {
    "clone, detach, contiguous": case(lambda: wide(lambda m, x: x.clone().detach().contiguous()), X, a=8),
    "identity and dropout": case(lambda: wide(lambda m, x: m.d(m.i(x)), d=nn.Dropout(0.5), i=nn.Identity()), X, a=8),
    "alpha dropout": case(lambda: wide(lambda m, x: m.d(x), d=nn.AlphaDropout(0.5)), X, a=8),
    "type changes": case(lambda: wide(lambda m, x: x.to(torch.float64).type_as(m.b.weight).float()), X, a=8),
    "zeros like": case(lambda: wide(lambda m, x: x + torch.zeros_like(x)), X, a=8),
    "ones of its shape": case(lambda: wide(lambda m, x: x * torch.ones(x.shape)), X, a=8),
    "full of a fixed shape": case(lambda: wide(lambda m, x: x + torch.full((8,), 0.5)), X, a=8),
    "constant channels are added": case(lambda: wide(ones_like_width, 12), X, a=8),
    "without gradients": case(lambda: wide(lambda m, x: _no_grad(x)), X, a=8),
    "without autocast": case(lambda: wide(lambda m, x: _no_autocast(x)), X, a=8),
}  # fmt: skip


def _no_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        return F.relu(x * 2)


def _no_autocast(x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False), torch.no_grad():
        return F.relu(x.float() * 2)


@pytest.mark.parametrize("name", CASES)
def test_channels_pass(name: str) -> None:
    check(CASES[name])


def test_values_that_differ_along_channels_hold_them() -> None:
    run = lambda m, x: m.b(m.a(m.f(x)) + torch.arange(8.0))  # noqa: E731
    model = net(run, f=nn.Linear(3, 6), a=nn.Linear(6, 8), b=nn.Linear(8, 2))
    check(case(lambda: model, X, {"a": "meets a dimension without channels"}, f=6))


def test_values_that_are_the_same_along_channels_do_not() -> None:
    run = lambda m, x: m.b(m.a(x) + torch.arange(2.0)[:, None])  # noqa: E731
    check(case(lambda: net(run, a=nn.Linear(3, 8), b=nn.Linear(8, 2)), X, a=8))
