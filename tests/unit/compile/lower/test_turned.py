"""Tensors with their dimensions in another order: nothing moves until it must, then to the right place."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from billhook.compile.passes import run_passes
from tests.unit.compile.exactness import Function, features, image, kinds, lowered

FREE: dict[str, Callable[[Tensor], Tensor]] = {
    "there and back": lambda x: x.permute(0, 2, 3, 1).relu().permute(0, 3, 1, 2),
    "tokens and back": lambda x: x.flatten(2).transpose(1, 2).relu().transpose(1, 2).unflatten(2, (6, 5)),
    "scale of channels": lambda x: (x.permute(0, 2, 3, 1) * torch.arange(1.0, 5.0)).permute(0, 3, 1, 2),
    "sum": lambda x: (x.permute(0, 2, 3, 1) + x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "mean of pixels": lambda x: x.permute(0, 2, 3, 1).mean((1, 2)),
    "gelu": lambda x: functional.gelu(x.transpose(1, 3)).transpose(1, 3),
}


@pytest.mark.parametrize("name", FREE)
def test_nothing_is_moved(name: str) -> None:
    assert "rearrange" not in kinds(lowered(FREE[name], image()))


def blocks(x: Tensor) -> Tensor:
    """Return images in blocks of 2×2 pixels."""
    return x.reshape(-1, 4, 3, 2, 2, 2)


MOVED: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: x.permute(0, 2, 3, 1).softmax(-1),
    "parts": lambda x: torch.mul(*x.permute(0, 2, 3, 1).chunk(2, -1)),
    "some channels": lambda x: x.permute(0, 2, 3, 1)[..., 1:3],
    "some rows": lambda x: x.permute(0, 2, 3, 1)[:, 1:4],
    "one channel": lambda x: x.permute(0, 2, 3, 1)[..., 2],
    "one row": lambda x: x.permute(0, 2, 3, 1)[:, 2],
    "joined channels": lambda x: torch.cat([x.permute(0, 2, 3, 1), x.permute(0, 2, 3, 1) * 2], 3),
    "joined with another order": lambda x: torch.cat([x.permute(0, 2, 3, 1), x.view(-1, 6, 5, 4)], 3),
    "sum of two orders": lambda x: x.permute(0, 2, 3, 1) + x.view(-1, 6, 5, 4),
    "largest": lambda x: x.permute(0, 2, 3, 1).amax((1, 3)),
    "mean of rows": lambda x: x.permute(0, 2, 3, 1).mean(1),
    "rows for columns": lambda x: x.transpose(2, 3),
    "rows for channels": lambda x: functional.max_pool2d(x.transpose(1, 2), 2),
    "numbers in a line": lambda x: x.permute(0, 2, 3, 1).flatten(1),
    "windows": lambda x: x.view(-1, 4, 3, 2, 5).permute(0, 2, 3, 1, 4),
    "space to depth": lambda x: (
        x[..., 1:].reshape(-1, 4, 3, 2, 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(-1, 16, 3, 2)
    ),
    "depth to space": lambda x: x.view(-1, 2, 2, 1, 6, 5).permute(0, 3, 4, 1, 5, 2).reshape(-1, 1, 12, 10),
    "flip of pixels": lambda x: x.flip(3, 1),
    "roll of pixels": lambda x: torch.roll(x, (2, -3), (2, 3)),
    "rows in any order": lambda x: x[:, :, [3, 1, 2, 1]],
    "joined rows": lambda x: torch.cat([x, 2 * x[:, :, :2]], 2),
    "joined columns": lambda x: torch.cat([x.relu(), x, x], 3),
    "joined with constants": lambda x: torch.cat([torch.ones(len(x), 4, 6, 2), x], 3),
    "stacked": lambda x: torch.stack([x, x.relu()], 4),
    "stacked channels": lambda x: torch.stack([x, x.relu()], 2).flatten(1, 2),
}


@pytest.mark.parametrize("name", MOVED)
def test_pixels_are_moved_to_the_right_place(name: str) -> None:
    lowered(MOVED[name], image())


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
def test_outputs_in_any_order(order: tuple[int, ...]) -> None:
    lowered(lambda x: x.permute(0, *order), image())
    lowered(lambda x: x.view(-1, 2, 2, 6, 5).permute(0, 1, *(d + 1 for d in order)), image())


def factors(total: int) -> st.SearchStrategy[list[int]]:
    """Shapes of so many numbers."""
    divisors = [n for n in range(1, total + 1) if total % n == 0]
    step = st.sampled_from(divisors)
    return step.flatmap(
        lambda n: st.just([n]) if n == total else factors(total // n).map(lambda rest: [n, *rest])
    )


@settings(max_examples=80)
@given(data=st.data())
def test_reshaping_and_transposing_in_a_row(data: st.DataObject) -> None:
    steps = []
    shape = [4, 6, 5]
    for _ in range(data.draw(st.integers(1, 4))):
        order = data.draw(st.permutations(range(len(shape))))
        shape = [shape[d] for d in order]
        wanted = data.draw(factors(prod(shape)).filter(lambda s: len(s) <= 5))
        steps.append((order, wanted))
        shape = wanted

    def forward(x: Tensor) -> Tensor:
        for order, wanted in steps:
            x = x.permute(0, *(d + 1 for d in order)).reshape(-1, *wanted).relu()
        return x

    lowered(forward, image())


class Block(nn.Module):
    """A block of ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.window, self.norm = nn.Conv2d(8, 8, 7, padding=3, groups=8), nn.LayerNorm(8)
        self.widen, self.narrow = nn.Linear(8, 32), nn.Linear(32, 8)
        self.scale = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Mix pixels, then channels."""
        mixed = self.norm(self.window(x).permute(0, 2, 3, 1))
        return x + self.scale * self.narrow(functional.gelu(self.widen(mixed))).permute(0, 3, 1, 2)


def test_a_block_of_convnext_moves_nothing() -> None:
    torch.manual_seed(0)
    network = run_passes(lowered(Block(), image(8, 7, 9)))
    assert kinds(network) == ["convolution", "norm", "convolution", "convolution"]


def test_a_mixer_of_tokens_moves_them_once_each_way() -> None:
    model = Function(lambda a, b, x: b(a(x.flatten(2)).transpose(1, 2)), nn.Linear(30, 12), nn.Linear(4, 6))
    lowered(model, image())


def test_a_vector_becomes_an_image_in_another_order() -> None:
    lowered(lambda x: functional.max_pool2d(x.view(-1, 3, 4, 2).permute(0, 3, 1, 2), 2), features(24))
