"""Scaled dot-product attention: heads leave whole, values by channel, and the default scale holds the head size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from billhook.graph.attention import HeadAttention
from tests.oracle import EVERYTHING, prune_half
from tests.small_net import Case, Net, case, check, net

T = torch.randn(2, 5, 3)
MASK = torch.randn(5, 5)


def heads(x: Tensor, count: int, size: int) -> Tensor:
    return x.unflatten(-1, (count, size)).transpose(1, 2)


def attention(run: object, inner: int = 8, **more: object) -> Net:
    layers = {n: nn.Linear(3, inner) for n in "qkv"}
    return net(run, out=nn.Linear(inner, 2), **{**layers, **more})  # type: ignore[arg-type]


def multi(
    m: Net, x: Tensor, mask: Tensor | None = None, causal: bool = False, scale: float | None = None
) -> Tensor:
    q, k, v = (heads(layer(x), 4, 2) for layer in (m.q, m.k, m.v))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale)
    return m.out(mixed.transpose(1, 2).flatten(2))


def single(m: Net, x: Tensor, scale: float | None = None) -> Tensor:
    return m.out(F.scaled_dot_product_attention(m.q(x), m.k(x), m.v(x), scale=scale))


def shared_keys(m: Net, x: Tensor) -> Tensor:
    q, k, v = heads(m.q(x), 4, 2), heads(m.k(x), 2, 2), heads(m.v(x), 2, 2)
    mixed = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    return m.out(mixed.transpose(1, 2).flatten(2))


CASES: dict[str, Case] = {
    "heads": case(lambda: attention(multi), T, q=4),
    "causal": case(lambda: attention(lambda m, x: multi(m, x, causal=True)), T, q=4),
    "a mask for all heads": case(lambda: attention(lambda m, x: multi(m, x, m.mask), mask=MASK), T, q=4),
    "a bias per head": case(
        lambda: attention(lambda m, x: multi(m, x, m.bias), bias=nn.Parameter(torch.zeros(4, 5, 5))), T, q=4
    ),
    "its own scale": case(lambda: attention(lambda m, x: multi(m, x, scale=0.3)), T, q=4),
    "one head": case(
        lambda: attention(single), T, {"q": "the head size sets the scale", "k": "the head size sets the scale"}, v=8
    ),
    "one head, its own scale": case(lambda: attention(lambda m, x: single(m, x, 0.3)), T, roles=EVERYTHING, q=8, v=8),
    "query heads that share keys": case(
        lambda: attention(shared_keys, k=nn.Linear(3, 4), v=nn.Linear(3, 4), more=nn.Linear(2, 6), last=nn.Linear(6, 2)), T,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n in CASES if n != "query heads that share keys"])
def test_attention(name: str) -> None:
    check(CASES[name])


def test_heads_that_share_keys_are_held_and_the_rest_is_free() -> None:
    run = lambda m, x: m.last(m.more(shared_keys(m, x)).relu())  # noqa: E731
    model = attention(run, k=nn.Linear(3, 4), v=nn.Linear(3, 4), more=nn.Linear(2, 6), last=nn.Linear(6, 2))
    pruned = prune_half(model, T)
    held = {g.id: str(g.frozen) for g in pruned.graph.groups.frozen}
    assert "query heads share key heads" in held["q"]
    assert pruned.graph.groups["more"].prunable


def test_a_bias_per_head_follows() -> None:
    assert check(CASES["a bias per head"]).bias.shape == (2, 5, 5)


def test_multihead_attention_of_torch_is_replaced() -> None:
    model = net(lambda m, x: m.out(m.attention(m.embed(x), m.embed(x), m.embed(x), need_weights=False)[0].relu()),
                embed=nn.Linear(3, 8), attention=nn.MultiheadAttention(8, 4, batch_first=True), out=nn.Linear(8, 2))  # fmt: skip
    small = check(case(lambda: model, T, embed=8, **{"attention.in_proj_weight": 4, "attention.out_proj": 8}))
    assert isinstance(small.attention, HeadAttention)
    assert small.attention.num_heads == 2
