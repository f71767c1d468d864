"""Small networks on sequences with one hard construct each; see hard_graphs.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 5
WIDTH, HEADS, SIZE = 16, 4, 4


class Tokens(nn.Module):
    """An embedding and a classifier around `mix`, which subclasses write; with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def mix(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.mix(x)
        x = x + self.down(F.gelu(self.up(x)))
        return self.head(x.mean(1))


def heads_of(x: Tensor, heads: int) -> Tensor:
    """[batch, tokens, width] → [batch, heads, tokens, size], written with the shape of `x`."""
    n, t, c = x.shape
    return x.reshape(n, t, heads, c // heads).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(q·kᵀ·scale)·v with the heads merged again."""
    mixed = (q * scale @ k.transpose(-2, -1)).softmax(-1) @ v
    return mixed.transpose(1, 2).flatten(2)


class FusedProjection(Tokens):
    """Queries, keys and values from one linear layer (ViT of timm)."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = HEADS, SIZE
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def mix(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        x = (q * self.head_dim**-0.5 @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).reshape(n, t, -1))


class SeparateProjections(Tokens):
    """Queries, keys and values from three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = HEADS
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)

    def mix(self, x: Tensor) -> Tensor:
        q, k, v = (heads_of(layer(x), self.heads) for layer in (self.q, self.k, self.v))
        return self.out(attend(q, k, v, 0.5))


class SingleHead(Tokens):
    """One head: the channels of values leave, those of queries and keys with one another."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(WIDTH, 8), nn.Linear(WIDTH, 8), nn.Linear(WIDTH, 12)
        self.out = nn.Linear(12, WIDTH)

    def mix(self, x: Tensor) -> Tensor:
        weights = (self.q(x) @ self.k(x).transpose(1, 2) / 3).softmax(-1)
        return self.out(weights @ self.v(x))


class FusedKernel(Tokens):
    """`scaled_dot_product_attention` on heads."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.q, self.kv, self.out = (
            nn.Linear(WIDTH, WIDTH),
            nn.Linear(WIDTH, 2 * WIDTH),
            nn.Linear(WIDTH, WIDTH),
        )

    def mix(self, x: Tensor) -> Tensor:
        k, v = self.kv(x).chunk(2, -1)
        q, k, v = (heads_of(t, self.num_heads) for t in (self.q(x), k, v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GroupedQuery(Tokens):
    """Four heads of queries share two heads of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (
            nn.Linear(WIDTH, WIDTH),
            nn.Linear(WIDTH, WIDTH // 2),
            nn.Linear(WIDTH, WIDTH // 2),
        )
        self.out = nn.Linear(WIDTH, WIDTH)

    def mix(self, x: Tensor) -> Tensor:
        q, k, v = heads_of(self.q(x), HEADS), heads_of(self.k(x), 2), heads_of(self.v(x), 2)
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        return self.out(attend(q, k, v, 0.5))


class MultiQuery(Tokens):
    """All heads of queries share one head of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, SIZE), nn.Linear(WIDTH, SIZE)
        self.out = nn.Linear(WIDTH, WIDTH)

    def mix(self, x: Tensor) -> Tensor:
        q, k, v = heads_of(self.q(x), HEADS), self.k(x)[:, None], self.v(x)[:, None]
        return self.out(attend(q, k, v, 0.5))


class EinsumAttention(Tokens):
    """Attention in einsum's notation."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = HEADS
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)

    def mix(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (layer(x).view(n, t, self.heads, -1) for layer in (self.q, self.k, self.v))
        weights = torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1)
        return self.out(torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(n, t, -1))


class CrossAttention(nn.Module):
    """Queries from one input, keys and values from another."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, WIDTH), nn.Linear(5, 12)
        self.q, self.k, self.v = nn.Linear(WIDTH, WIDTH), nn.Linear(12, WIDTH), nn.Linear(12, WIDTH)
        self.out, self.head = nn.Linear(WIDTH, 12), nn.Linear(12, CLASSES)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = self.left(a).relu(), self.right(b).relu()
        q, k, v = heads_of(self.q(a), HEADS), heads_of(self.k(b), HEADS), heads_of(self.v(b), HEADS)
        return self.head(self.out(attend(q, k, v, 0.5)).relu())


class NormedWidths(Tokens):
    """LayerNorm inside an MLP: its channels are held, those of the other layers are not."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.wide, self.inner, self.narrow = nn.Linear(WIDTH, 24), nn.Linear(24, 20), nn.Linear(20, WIDTH)

    def mix(self, x: Tensor) -> Tensor:
        return self.narrow(self.inner(self.wide(self.norm(x)).relu()).relu())


class Gated(Tokens):
    """GLU in three ways: the operator, a chunk, two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.glu, self.chunked = nn.Linear(WIDTH, 24), nn.Linear(12, 20)
        self.gate, self.value, self.out = nn.Linear(10, 8), nn.Linear(10, 8), nn.Linear(8, WIDTH)

    def mix(self, x: Tensor) -> Tensor:
        value, gate = self.chunked(F.glu(self.glu(x))).chunk(2, -1)
        x = value * gate.tanh()
        return self.out(F.silu(self.gate(x)) * self.value(x))


class RecurrentBeside(nn.Module):
    """A convolution feeds an LSTM, which cannot be pruned and must not become wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv1d(6, 12, 3, padding=1), nn.Conv1d(12, 8, 3, padding=1)
        self.lstm, self.head = nn.LSTM(8, 10, batch_first=True), nn.Linear(10, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.one(x.transpose(1, 2)).relu()).transpose(1, 2)
        return self.head(self.lstm(x)[0][:, -1])


class TokenClass(nn.Module):
    """Class token, position embedding and layer scale: parameters outside modules."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.token, self.position = (
            nn.Parameter(torch.zeros(1, 1, WIDTH)),
            nn.Parameter(torch.zeros(1, 17, WIDTH)),
        )
        self.up, self.down = nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)
        self.scale = nn.Parameter(torch.ones(WIDTH))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(len(x), -1, -1), x), 1) + self.position
        x = x + self.scale * self.down(F.gelu(self.up(x)))
        return self.head(x[:, 0])


class Vocabulary(nn.Module):
    """An embedding whose table is also the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)
        self.out = nn.Linear(WIDTH, 11, bias=False)
        self.out.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        return self.out(x + self.down(self.up(x).relu()))


class TorchAttention(Tokens):
    """`nn.MultiheadAttention`, whose projections are one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def mix(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


class TorchEncoder(nn.Module):
    """`nn.TransformerEncoder`, which takes a fused path in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 24, batch_first=True)
        self.embed, self.encoder = (
            nn.Linear(6, WIDTH),
            nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        )
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))
