"""Products of two computed tensors, and attention in the forms in which it is written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from billhook.compile.lower import lower
from billhook.errors import UnsupportedError
from tests.unit.compile.exactness import Function, image, kinds, lowered


def tokens(*shape: int) -> Tensor:
    """Return random tokens, the same in every run."""
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(sum(shape)))


class Attention(nn.Module):
    """Attention as torch writes it, with the batch in the second dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Attend to oneself."""
        made: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return made


class Joint(nn.Module):
    """Attention as timm writes it, with query, key and value in the first dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.joint, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        """Attend to oneself."""
        samples, count, channels = x.shape
        q, k, v = self.joint(x).reshape(samples, count, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        x = functional.scaled_dot_product_attention(q, k, v)
        return self.out(x.transpose(1, 2).reshape(samples, count, channels))


class ByHand(nn.Module):
    """Attention as products and a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        """Attend to oneself."""
        scores = self.query(x) @ self.key(x).transpose(1, 2) * 8**-0.5
        return scores.softmax(-1) @ self.value(x)


@pytest.mark.parametrize("kind", [Attention, Joint, ByHand])
@pytest.mark.parametrize("count", [2, 5, 40])
def test_attention_to_oneself(kind: type[nn.Module], count: int) -> None:
    torch.manual_seed(0)
    found = kinds(lowered(kind(), tokens(count, 8)))
    assert found.count("matmul") == 2
    assert count == 2 or found.count("softmax") == 1  # of two numbers, it may be a sigmoid


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_layer_of_a_transformer(norm_first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, norm_first=norm_first)
    lowered(layer, tokens(5, 8))


@settings(max_examples=20)
@given(
    heads=st.sampled_from([(), (1,), (3,), (2, 2)]),
    queries=st.integers(2, 6),
    keys=st.integers(2, 6),
    inner=st.integers(2, 5),
    outer=st.integers(1, 5),
)
def test_attention_to_others(heads: tuple[int, ...], queries: int, keys: int, inner: int, outer: int) -> None:
    q, k, v = (tokens(*heads, *size) for size in ((queries, inner), (keys, inner), (keys, outer)))
    lowered(Function(lambda q, k, v: functional.scaled_dot_product_attention(q, k, v)), q, k, v)


MASKS = {
    "no later ones": {"is_causal": True},
    "true and false": {"attn_mask": torch.arange(49).reshape(7, 7) % 3 > 0},
    "of each head": {"attn_mask": torch.arange(147.0).reshape(3, 7, 7) / 50},
    "of each sample": {"attn_mask": torch.ones(2, 3, 7, 7)},
    "with a scale": {"scale": 0.3},
}


@pytest.mark.parametrize("name", MASKS)
def test_attention_with_a_mask(name: str) -> None:
    def forward(x: Tensor) -> Tensor:
        options = MASKS[name]
        return functional.scaled_dot_product_attention(x, x * 2, x, **options)  # type: ignore[arg-type]

    lowered(forward, tokens(3, 7, 4))


def test_a_mask_that_hides_everything_is_refused() -> None:
    mask = torch.arange(49).reshape(7, 7) > 10
    with pytest.raises(UnsupportedError, match="hides everything"):
        lower(
            Function(lambda x: functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)),
            tokens(3, 7, 4),
        )


PRODUCTS: dict[str, Callable[[Tensor], Tensor]] = {
    "of channels": lambda x: x.flatten(2) @ x.flatten(2).transpose(1, 2),
    "bmm": lambda x: torch.bmm(x.flatten(2).transpose(1, 2), x.flatten(2)),
    "of images": lambda x: x @ x.transpose(2, 3),
    "of rows": lambda x: x.transpose(1, 2) @ x.transpose(1, 2).transpose(2, 3),
    "einsum": lambda x: torch.einsum("bhid,bhjd->bhij", x, x * 2),
    "einsum, turned": lambda x: torch.einsum("bhij,bhkj->bikh", x, x * 2),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str) -> None:
    lowered(PRODUCTS[name], image())


def test_attention_over_pixels() -> None:
    def forward(query: nn.Module, key: nn.Module, value: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (layer(x).flatten(2) for layer in (query, key, value))
        made = (q.transpose(1, 2) @ k).softmax(-1) @ v.transpose(1, 2)
        return x + made.transpose(1, 2).reshape(x.shape)

    torch.manual_seed(0)
    layers = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(4, 4, 1)
    network = lowered(Function(forward, *layers), image())
    assert "rearrange" not in kinds(network)


REFUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "einsum": lambda x: torch.einsum("bchw,bchw->bc", x, x),
    "matmul": lambda x: torch.matmul(x, x.mean(1, keepdim=True).transpose(2, 3)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_products_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        lower(Function(REFUSED[name]), image())
    assert caught.value.operators == (name,)
