"""`HeadAttention`: `nn.MultiheadAttention` with fewer heads than its width would have."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from billhook.errors import ApplyError


class HeadAttention(nn.Module):
    """Self- and cross-attention whose inner width is heads × head size, free of the embedding's width.

    Parameters have the names that `nn.MultiheadAttention` gives them: in_proj_weight [3·inner, embed],
    in_proj_bias [3·inner], out_proj.weight [embed, inner]. The call is the same, too.
    """

    # nn.TransformerEncoderLayer reads these before it picks its fused path, which this module must not take.
    _qkv_same_embed_dim = False
    bias_k = bias_v = None

    def __init__(self, original: nn.MultiheadAttention) -> None:
        super().__init__()
        if original.in_proj_weight is None or original.bias_k is not None or original.add_zero_attn:
            raise ApplyError("attention with separate projections, bias_k or add_zero_attn keeps its heads")
        inner = original.in_proj_weight.shape[0] // 3
        self.embed_dim = original.in_proj_weight.shape[1]
        self.head_dim = original.head_dim
        self.num_heads = inner // original.head_dim
        self.dropout = original.dropout
        self.batch_first = original.batch_first
        self.in_proj_weight = original.in_proj_weight
        self.in_proj_bias = original.in_proj_bias
        self.out_proj = original.out_proj
        self.training = original.training

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return (output, attention weights or None), as `nn.MultiheadAttention` does."""
        batched = query.dim() == 3
        if not batched:
            query, key, value = (t.unsqueeze(0 if self.batch_first else 1) for t in (query, key, value))
        if not self.batch_first:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        weights = self.in_proj_weight.chunk(3)
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(t, w, b).view(*t.shape[:-1], self.num_heads, self.head_dim).transpose(1, 2)
            for t, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        mask = _merge_masks(attn_mask, key_padding_mask, q, self.num_heads)
        rate = self.dropout if self.training else 0.0
        attention: Tensor | None = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / self.head_dim**0.5
            attention = F.dropout((scores if mask is None else scores + mask).softmax(-1), rate)
            mixed = attention @ v
            attention = attention.mean(1) if average_attn_weights else attention
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate)
        output: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if not self.batch_first:
            output = output.transpose(0, 1)
        if not batched:
            at = 0 if self.batch_first else 1
            output, attention = output.squeeze(at), None if attention is None else attention.squeeze(0)
        return output, attention


def _merge_masks(attn_mask: Tensor | None, padding: Tensor | None, like: Tensor, heads: int) -> Tensor | None:
    """Return one additive mask that broadcasts over [batch, heads, queries, keys]."""
    merged: Tensor | None = None
    if attn_mask is not None:
        merged = _additive(attn_mask, like)
        if merged.dim() == 3:
            # One mask per head of the original network: it no longer says which head it is for.
            if merged.shape[0] != like.shape[0] * heads:
                raise ApplyError(
                    "a mask per head does not fit attention whose heads were pruned; "
                    "give one mask for all heads"
                )
            merged = merged.view(like.shape[0], heads, *merged.shape[1:])
    if padding is not None:
        extra = _additive(padding, like)[:, None, None, :]
        merged = extra if merged is None else merged + extra
    return merged


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))
    return mask.to(like.dtype)
