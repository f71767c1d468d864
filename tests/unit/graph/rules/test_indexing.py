"""Joining, cutting and picking."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.small_net import Case, Net, case, check, net

X, X2, WORDS = torch.randn(2, 3), torch.randn(2, 3, 6, 6), torch.tensor([[1, 4, 2], [0, 3, 3]])


def one(run: object, wide: int, left: int, **more: object) -> Net:
    return net(run, a=nn.Linear(3, wide), b=nn.Linear(left, 2), **more)  # type: ignore[arg-type]


def two(run: object, left: int, **more: object) -> Net:
    return one(run, 8, left, c=nn.Linear(3, 6), **more)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


LOOKED_UP = "indices are looked up by number"
CASES: dict[str, Case] = {
    "cat": case(lambda: two(lambda m, x: m.b(torch.cat((m.a(x), m.c(x)), 1)), 14), X, a=8, c=6),
    "cat with the input": case(lambda: one(lambda m, x: m.b(torch.cat((x, m.a(x)), 1)), 8, 11), X, a=8),
    "cat with itself": case(lambda: one(lambda m, x: m.b(torch.cat((m.a(x), m.a(x).relu()), 1)), 8, 16), X, a=8),
    "cat along the batch": case(lambda: one(lambda m, x: m.b(torch.cat((m.a(x), m.a(2 * x)), 0)), 8, 8), X, a=8),
    "hstack": case(lambda: two(lambda m, x: m.b(torch.hstack((m.a(x), m.c(x)))), 14), X, a=8, c=6),
    "vstack": case(lambda: one(lambda m, x: m.b(torch.vstack((m.a(x), m.a(-x)))), 8, 8), X, a=8),
    "stack and sum": case(lambda: one(lambda m, x: m.b(torch.stack((m.a(x), m.a(-x)), 1).sum(1)), 8, 8), X, a=8),
    "stack and flatten": case(lambda: one(lambda m, x: m.b(torch.stack((m.a(x), m.a(-x)), 1).flatten(1)), 8, 16), X, a=8),
    "chunks are tied": case(lambda: one(lambda m, x: m.b(m.a(x).chunk(2, 1)[0] * m.a(x).chunk(2, 1)[1]), 8, 4), X, a=4),
    "chunks that go apart are tied": case(
        lambda: net(lambda m, x: m.b(m.a(x).chunk(2, 1)[0]) + m.c(m.a(x).chunk(2, 1)[1]), a=nn.Linear(3, 8), b=nn.Linear(4, 2),
                    c=nn.Linear(4, 2)), X, a=4,
    ),
    "unequal chunks are held": case(
        lambda: net(lambda m, x: m.b(m.a(m.f(x)).chunk(2, 1)[0]), f=nn.Linear(3, 6), a=nn.Linear(6, 7), b=nn.Linear(4, 2)), X,
        {"a[0:4]": "chunk into parts of unequal size"}, f=6,
    ),
    "split into sizes": case(
        lambda: net(lambda m, x: m.b(m.a(x).split([3, 5], 1)[0]) + m.c(m.a(x).split([3, 5], 1)[1]), a=nn.Linear(3, 8),
                    b=nn.Linear(3, 2), c=nn.Linear(5, 2)), X, **{"a[0:3]": 3, "a[3:8]": 5},
    ),
    "split into sizes of one number": case(lambda: one(lambda m, x: m.b(sum(m.a(x).split(4, 1))), 8, 4), X, a=4),
    "tensor_split": case(lambda: one(lambda m, x: m.b(sum(torch.tensor_split(m.a(x), 2, 1))), 8, 4), X, a=4),
    "a slice": case(lambda: one(lambda m, x: m.b(m.a(x)[:, 2:6]), 8, 4), X, **{"a[2:6]": 4, "a[0...7]": 4}),
    "a slice from the end": case(lambda: one(lambda m, x: m.b(m.a(x)[:, -6:-1]), 8, 5), X, **{"a[2:7]": 5, "a[0...7]": 3}),
    "every second": case(lambda: one(lambda m, x: m.b(m.a(x)[:, ::2] + m.a(x)[:, 1::2]), 8, 4), X, a=4),
    "narrow": case(lambda: one(lambda m, x: m.b(m.a(x).narrow(1, 2, 4)), 8, 4), X, **{"a[2:6]": 4, "a[0...7]": 4}),
    "one channel is picked": case(
        lambda: net(lambda m, x: m.b(m.a(m.f(x))) * m.a(m.f(x)).select(1, 3)[:, None], f=nn.Linear(3, 6), a=nn.Linear(6, 8),
                    b=nn.Linear(8, 2)), X, {"a": "a channel is picked by its number"}, f=6,
    ),
    "a class token is picked": case(
        lambda: net(lambda m, x: m.b(m.a(x)[:, 0]), a=nn.Linear(3, 8), b=nn.Linear(8, 2)), torch.randn(2, 4, 3), a=8
    ),
    "channels are looked up": case(
        lambda: net(lambda m, x: m.b(m.a(m.f(x))[:, [5, 0, 2]]), f=nn.Linear(3, 6), a=nn.Linear(6, 8), b=nn.Linear(3, 2)), X,
        {"a": LOOKED_UP}, f=6,
    ),
    "tokens are looked up": case(lambda: one(lambda m, x: m.b(m.a(x)[:, [1, 0]]), 8, 8), torch.randn(2, 4, 3), a=8),
    "index_select": case(
        lambda: net(lambda m, x: m.b(m.a(m.f(x)).index_select(1, m.i)), f=nn.Linear(3, 6), a=nn.Linear(6, 8), b=nn.Linear(3, 2),
                    i=torch.tensor([5, 0, 2])), X, {"a": LOOKED_UP}, f=6,
    ),
    "gather along tokens": case(
        lambda: one(lambda m, x: m.b(m.a(x).gather(1, torch.tensor([2, 0])[None, :, None].expand(2, 2, 8))), 8, 8),
        torch.randn(2, 4, 3), a=8,
    ),
    "gather along channels": case(
        lambda: net(lambda m, x: m.b(m.a(m.f(x)).gather(1, m.i)), f=nn.Linear(3, 6), a=nn.Linear(6, 8), b=nn.Linear(3, 2),
                    i=torch.tensor([[5, 0, 2], [1, 1, 7]])), X, {"a": LOOKED_UP}, f=6, i=3,
    ),
    "unbind along tokens": case(lambda: one(lambda m, x: m.b(sum(m.a(x).unbind(1))), 8, 8), torch.randn(2, 4, 3), a=8),
    "unbind along channels": case(
        lambda: net(lambda m, x: m.b(torch.stack(m.a(m.f(x)).unbind(1)[:3], 1)), f=nn.Linear(3, 6), a=nn.Linear(6, 8),
                    b=nn.Linear(3, 2)), X, {"a": "unbind takes every index"}, f=6,
    ),
    "embedding": case(
        lambda: net(lambda m, w: m.b(m.a(w).relu()), a=nn.Embedding(7, 8, padding_idx=0), b=nn.Linear(8, 2)), WORDS, a=8
    ),
    "embeddings add up": case(
        lambda: net(lambda m, w: m.b(m.a(w) + m.p(torch.arange(3))), a=nn.Embedding(7, 8), p=nn.Embedding(3, 8), b=nn.Linear(8, 2)), WORDS, a=8
    ),
    "a table that is looked up along the batch": case(
        lambda: net(lambda m, x: m.b(m.a(x) + m.t[m.i]), a=nn.Linear(3, 8), t=parameter(4, 8), i=torch.tensor([1, 3]), b=nn.Linear(8, 2)), X, a=8
    ),
    "channels are padded": case(lambda: one(lambda m, x: m.b(F.pad(m.a(x), (1, 2))), 8, 11), X, a=8),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_pieces_keep_their_channels(name: str) -> None:
    check(CASES[name])


def test_a_slice_that_is_written_follows() -> None:
    def run(m: Net, x: torch.Tensor) -> torch.Tensor:
        y = m.a(x)
        y[:, 2:6] = m.c(x)
        return m.b(y)

    model = net(run, a=nn.Linear(3, 8), c=nn.Linear(3, 4), b=nn.Linear(8, 2))
    check(case(lambda: model, X, **{"a[2:6]": 4, "a[0...7]": 4}))


def test_the_attributes_of_an_embedding_follow() -> None:
    small = check(CASES["embedding"])
    assert (small.a.num_embeddings, small.a.embedding_dim) == (7, 4)
