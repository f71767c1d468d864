"""`HeadAttention` computes what `nn.MultiheadAttention` computes, with any number of heads."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from billhook.errors import ApplyError
from billhook.graph import capture
from billhook.graph.attention import HeadAttention
from tests.oracle import prune_half, randomize

WIDTH, HEADS = 12, 3


def original(batch_first: bool, bias: bool = True) -> nn.MultiheadAttention:
    return randomize(nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first, bias=bias).eval())  # type: ignore[return-value]


def inputs(batch_first: bool) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, n, WIDTH, generator=generator) for n in (5, 7, 7))
    return (
        (query, key, value)
        if batch_first
        else (query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1))
    )


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "without weights": {"need_weights": False},
    "weights per head": {"average_attn_weights": False},
    "a mask of numbers": {"attn_mask": torch.randn(5, 7)},
    "a mask of numbers, without weights": {"attn_mask": torch.randn(5, 7), "need_weights": False},
    "a mask of booleans": {"attn_mask": torch.arange(35).reshape(5, 7) % 3 == 0},
    "a mask per head": {"attn_mask": torch.randn(2 * HEADS, 5, 7)},
    "padding": {"key_padding_mask": torch.arange(14).reshape(2, 7) > 11},
    "padding and a mask": {
        "key_padding_mask": torch.arange(14).reshape(2, 7) > 11,
        "attn_mask": torch.arange(35).reshape(5, 7) % 3 == 0,
    },
}  # fmt: skip


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_it_is_equivalent(batch_first: bool, options: dict[str, Any]) -> None:
    module = original(batch_first)
    expected, weights = module(*inputs(batch_first), **options)
    got, own_weights = HeadAttention(module)(*inputs(batch_first), **options)
    torch.testing.assert_close(got, expected)
    assert (weights is None) == (own_weights is None)
    if weights is not None:
        torch.testing.assert_close(own_weights, weights)


@pytest.mark.parametrize("need_weights", [True, False])
def test_a_causal_hint_with_its_mask(need_weights: bool) -> None:
    module, (query, _, _) = original(True), inputs(True)
    options = {
        "attn_mask": nn.Transformer.generate_square_subsequent_mask(5),
        "is_causal": True,
        "need_weights": need_weights,
    }
    torch.testing.assert_close(
        HeadAttention(module)(query, query, query, **options)[0], module(query, query, query, **options)[0]
    )


def test_inputs_without_a_batch() -> None:
    module = original(True)
    query, key, value = (t[0] for t in inputs(True))
    expected, got = module(query, key, value), HeadAttention(module)(query, key, value)
    torch.testing.assert_close(got[0], expected[0])
    torch.testing.assert_close(got[1], expected[1])


def test_without_bias() -> None:
    module = original(True, bias=False)
    torch.testing.assert_close(HeadAttention(module)(*inputs(True))[0], module(*inputs(True))[0])


def test_dropout_is_active_in_training() -> None:
    module = nn.MultiheadAttention(WIDTH, HEADS, dropout=0.5, batch_first=True)
    own = HeadAttention(randomize(module))  # type: ignore[arg-type]
    assert own.training
    query, _, _ = inputs(True)
    assert not torch.equal(own(query, query, query)[0], own(query, query, query)[0])
    own.eval()
    assert torch.equal(own(query, query, query)[0], own(query, query, query)[0])


def test_what_has_no_common_projection_is_refused() -> None:
    with pytest.raises(ApplyError, match="separate projections, bias_k or add_zero_attn"):
        HeadAttention(nn.MultiheadAttention(WIDTH, HEADS, kdim=5))


def test_a_mask_for_heads_that_left_is_refused() -> None:
    module = original(True)
    own = HeadAttention(module)
    with pytest.raises(ApplyError, match="a mask per head does not fit"):
        own(*inputs(True), attn_mask=torch.zeros(2 * 4, 5, 7))


class Block(nn.Module):
    """Attention of torch in a network, called the way `options` say."""

    def __init__(self, batch_first: bool, options: dict[str, Any]) -> None:
        super().__init__()
        self.embed, self.attention = (
            nn.Linear(4, WIDTH),
            nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first),
        )
        self.head, self.options = nn.Linear(WIDTH, 2), options

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.attention(x, x, x, **self.options)[0]
        return self.head(x)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"need_weights": False}, {"attn_mask": torch.zeros(5, 5)}],
    ids=["weights", "none", "mask"],
)
def test_heads_leave_a_network(batch_first: bool, options: dict[str, Any]) -> None:
    pruned = prune_half(
        randomize(Block(batch_first, options).eval()), torch.randn((2, 5, 4) if batch_first else (5, 2, 4))
    )
    assert pruned.graph.groups["attention.in_proj_weight"].size == HEADS
    own = pruned.small.attention
    assert isinstance(own, HeadAttention)
    assert own.num_heads == 2
    assert own.in_proj_weight.shape[0] == 3 * 2 * WIDTH // HEADS
    assert {n for n, _ in own.named_parameters()} == {
        "in_proj_weight",
        "in_proj_bias",
        "out_proj.weight",
        "out_proj.bias",
    }


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_heads_and_widths_leave_an_encoder(batch_first: bool, norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 20, batch_first=batch_first, norm_first=norm_first)
    model = randomize(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval())
    x = torch.randn((2, 5, WIDTH) if batch_first else (5, 2, WIDTH))
    pruned = prune_half(model, x)
    assert {g.size for g in pruned.graph.groups.prunable} == {HEADS, 20}
    assert isinstance(pruned.small.layers[1].self_attn, HeadAttention)
    assert pruned.small.layers[0].linear1.out_features == 10
    mask = torch.arange(10).reshape(2, 5) > 8
    pruned.small(x, src_key_padding_mask=mask)  # the fused path of torch must not be taken


def test_an_encoder_layer_with_fewer_heads_can_be_trained() -> None:
    model = randomize(nn.TransformerEncoderLayer(WIDTH, HEADS, 20, batch_first=True))
    x = torch.randn(2, 5, WIDTH)
    small = copy.deepcopy(prune_half(model, x).small).train()
    small(x).square().mean().backward()
    assert all(p.grad is not None for p in small.parameters())


def test_heads_leave_a_decoder_with_cross_attention() -> None:
    model = randomize(nn.TransformerDecoderLayer(WIDTH, HEADS, 20, batch_first=True).eval())
    pruned = prune_half(model, (torch.randn(2, 5, WIDTH), torch.randn(2, 7, WIDTH)))
    assert isinstance(pruned.small.multihead_attn, HeadAttention)


class SeparateWidths(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, kdim=5, vdim=6, batch_first=True)
        self.inner, self.head = nn.Linear(WIDTH, 8), nn.Linear(8, 2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.head(self.inner(self.attention(q, k, v)[0]).relu())


def test_separate_projections_are_never_wrong() -> None:
    given = (torch.randn(2, 5, WIDTH), torch.randn(2, 7, 5), torch.randn(2, 7, 6))
    assert capture(SeparateWidths(), given).groups["inner"].prunable
    prune_half(randomize(SeparateWidths().eval()), given)
