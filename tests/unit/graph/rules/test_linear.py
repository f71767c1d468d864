"""Linear layers, matrix products, einsum."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.oracle import EVERYTHING
from tests.small_net import Case, Net, case, check, net

X, T = torch.randn(4, 3), torch.randn(2, 5, 3)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def split_heads(m: Net, x: Tensor, name: str) -> Tensor:
    return getattr(m, name)(x).unflatten(-1, (4, 2)).transpose(1, 2)


def attention(run: object) -> nn.Module:
    layers = {n: nn.Linear(3, 8) for n in "qkv"}
    return net(run, out=nn.Linear(8, 2), **layers)  # type: ignore[arg-type]


CASES: dict[str, Case] = {
    "linear": case(lambda: net(lambda m, x: m.b(m.a(x).relu()), a=nn.Linear(3, 8), b=nn.Linear(8, 2)), X, a=8),
    "on tokens": case(lambda: net(lambda m, x: m.b(m.a(x)), a=nn.Linear(3, 8, bias=False), b=nn.Linear(8, 2)), T, a=8),
    "on a vector": case(lambda: net(lambda m, x: m.b(m.a(x)), a=nn.Linear(3, 8), b=nn.Linear(8, 2)), X[0], a=8),
    "matmul with a parameter": case(
        lambda: net(lambda m, x: m.b(m.a(x) @ m.w), a=nn.Linear(3, 8), w=parameter(8, 6), b=nn.Linear(6, 2)), X, a=8, w=6
    ),
    "addmm": case(
        lambda: net(lambda m, x: m.b(torch.addmm(m.c, m.a(x), m.w)), a=nn.Linear(3, 8), w=parameter(8, 6), c=parameter(6),
                    b=nn.Linear(6, 2)), X, a=8, w=6,
    ),
    "baddbmm": case(
        lambda: net(lambda m, x: m.b(torch.baddbmm(m.c, m.a(x), m.w.expand(2, 8, 6))), a=nn.Linear(3, 8), w=parameter(8, 6),
                    c=parameter(1, 1, 6), b=nn.Linear(6, 2)), T, a=8, c=6,
    ),
    "a product of two activations": case(
        lambda: net(lambda m, x: m.b(m.p(x).transpose(1, 2) @ m.q(x)).flatten(1) @ m.w, p=nn.Linear(3, 4), q=nn.Linear(3, 6),
                    b=nn.Linear(6, 5), w=parameter(20, 2)), T, {"b": "merged with another dimension"}, p=4, q=6,
    ),
    "a product over channels": case(
        lambda: net(lambda m, x: m.b(m.p(x) @ m.q(x).transpose(1, 2)), p=nn.Linear(3, 8), q=nn.Linear(3, 8),
                    b=nn.Linear(5, 2)), T, p=8, roles=EVERYTHING,
    ),
    "tokens mixed by a linear layer": case(
        lambda: net(lambda m, x: m.b(m.t(m.a(x).transpose(1, 2)).relu().transpose(1, 2)).mean(1), a=nn.Linear(3, 8),
                    t=nn.Linear(5, 5), b=nn.Linear(8, 2)), T, frozen={"t": "mean"}, a=8,
    ),
    "attention over heads": case(
        lambda: attention(lambda m, x: m.out(((split_heads(m, x, "q") @ split_heads(m, x, "k").mT).softmax(-1)
                                              @ split_heads(m, x, "v")).transpose(1, 2).flatten(2))), T, q=4,
    ),
    "einsum over heads": case(
        lambda: attention(lambda m, x: m.out(torch.einsum("bhts,bhsd->bthd", torch.einsum(
            "bhtd,bhsd->bhts", split_heads(m, x, "q"), split_heads(m, x, "k")).softmax(-1),
            split_heads(m, x, "v")).flatten(2))), T, q=4,
    ),
    "einsum as a linear layer": case(
        lambda: net(lambda m, x: m.b(torch.einsum("bti,oi->bto", m.a(x), m.w)), a=nn.Linear(3, 8), w=parameter(6, 8),
                    b=nn.Linear(6, 2)), T, a=8, w=6,
    ),
    "einsum without an arrow": case(
        lambda: net(lambda m, x: m.b(torch.einsum("bi,io", m.a(x), m.w)), a=nn.Linear(3, 8), w=parameter(8, 6),
                    b=nn.Linear(6, 2)), X, a=8, w=6,
    ),
    "einsum with an ellipsis holds": case(
        lambda: net(lambda m, x: m.b(torch.einsum("...i,io->...o", m.a(m.o(x)), m.w)), o=nn.Linear(3, 7), a=nn.Linear(7, 8),
                    w=parameter(8, 6), b=nn.Linear(6, 2)), X, frozen={"a": "ellipsis"}, o=7,
    ),
    "bilinear": case(
        lambda: net(lambda m, x: m.b(torch.einsum("bi,oij,bj->bo", m.p(x), m.w, m.q(x))), p=nn.Linear(3, 4),
                    q=nn.Linear(3, 5), w=parameter(6, 4, 5), b=nn.Linear(6, 2)), X, p=4, q=5, w=6,
    ),
    "outer": case(
        lambda: net(lambda m, x: F.linear(torch.outer(m.p(x), m.q(x)).flatten(), m.w), p=nn.Linear(3, 4), q=nn.Linear(3, 6),
                    w=parameter(2, 24)), X[0], frozen={"q": "merged with another dimension"}, p=4,
    ),
    "broadcast heads": case(
        lambda: net(lambda m, x: m.b((m.p(x).unflatten(-1, (4, 2)).transpose(1, 2) @ m.w).transpose(1, 2).flatten(2)),
                    p=nn.Linear(3, 8), w=parameter(4, 2, 3), b=nn.Linear(12, 2)), T, p=4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_products(name: str) -> None:
    check(CASES[name])


def test_the_attributes_of_a_layer_follow() -> None:
    small = check(CASES["linear"])
    assert (small.a.out_features, small.b.in_features, small.b.out_features) == (4, 4, 2)
