"""What only moves planes: reshaping, transposing, slicing, joining and repeating tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from billhook.compile.lower import lower
from billhook.errors import UnsupportedError
from tests.unit.compile.exactness import Function, features, image, kinds, lowered


def shuffled(x: Tensor) -> Tensor:
    return x.view(x.shape[0], 2, 2, 6, 5).transpose(1, 2).reshape(x.shape[0], 4, 6, 5)


VIEWS: dict[str, Callable[[Tensor], Any]] = {
    "flatten": lambda x: x.flatten(1),
    "flatten pixels": lambda x: x.flatten(2),
    "flatten pixels and back": lambda x: x.flatten(2).sigmoid().view(-1, 4, 6, 5) + x,
    "flatten and back": lambda x: x.flatten(1).view(-1, 4, 6, 5).relu(),
    "a part of what was flattened": lambda x: x.flatten(1)[:, 7:40].relu(),
    "reshape": lambda x: x.reshape(-1, 8, 3, 5),
    "squeeze": lambda x: x.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1),
    "squeeze all": lambda x: x.mean((2, 3), keepdim=True).squeeze(),
    "unsqueeze": lambda x: x.unsqueeze(1).unsqueeze(-1),
    "shuffle": lambda x: shuffled(x),
    "shuffle operator": lambda x: nn.functional.channel_shuffle(x, 2),
    "permute": lambda x: x.unflatten(1, (2, 2)).permute(0, 2, 1, 3, 4).relu(),
    "movedim": lambda x: x.unflatten(1, (2, 2)).movedim(1, 2).relu(),
    "swap of vectors": lambda x: x.mean((2, 3)).view(-1, 2, 2).transpose(1, 2).flatten(1).relu(),
    "chunk": lambda x: x.chunk(2, 1),
    "uneven chunk": lambda x: x.chunk(3, 1)[1].relu(),
    "split": lambda x: x.split([1, 3], 1)[1].relu(),
    "unbind": lambda x: x.unbind(1)[2].unsqueeze(1).relu(),
    "slice": lambda x: x[:, 1:3].relu(),
    "every second channel": lambda x: x[:, 1::2].relu(),
    "narrow": lambda x: x.narrow(1, 1, 2).relu(),
    "one channel": lambda x: x[:, -1].relu(),
    "chosen": lambda x: x.index_select(1, torch.tensor([2, 0, 2])).relu(),
    "index": lambda x: x[:, [3, 1]].relu(),
    "everything": lambda x: x[:, :, :, :].relu(),
    "cat": lambda x: torch.cat([x, x.relu(), x[:, :1]], 1),
    "cat of a slice": lambda x: torch.cat([x[:, :2], x[:, 2:].relu()], dim=-3),
    "cat with a constant": lambda x: torch.cat([x, torch.full((x.shape[0], 1, 6, 5), 0.5).to(x)], 1).relu(),
    "stack": lambda x: torch.stack([x, -x], 1).flatten(1, 2).relu(),
    "stack and sum": lambda x: torch.stack([x, x.relu()], 2).sum(2),
    "repeat": lambda x: x.repeat(1, 3, 1, 1).relu(),
    "flip": lambda x: x.flip(1).relu(),
    "roll": lambda x: x.roll(1, 1).relu(),
    "rows": lambda x: x[:, :, 1:4].relu(),
    "a row": lambda x: x[:, :, 2].relu(),
    "a pixel": lambda x: x[:, :, 2, 3].relu(),
    "pixels from the end": lambda x: x[..., -3:].relu(),
    "every second row and pixel": lambda x: x[:, :, ::2, 1::2].relu(),
    "focus": lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2]], 1),
    "every third row of some": lambda x: x[:, :, 1:5:3],
}


@pytest.mark.parametrize("name", VIEWS)
def test_views(name: str) -> None:
    lowered(VIEWS[name], image())


@pytest.mark.parametrize("name", ["shuffle", "chunk", "slice", "cat", "unsqueeze", "flip"])
def test_moving_planes_makes_at_most_one_selection_per_reader(name: str) -> None:
    assert set(kinds(lowered(VIEWS[name], image()))) <= {"select", "activate"}
    assert kinds(lowered(VIEWS[name], image())).count("select") <= 2


def test_every_second_row_and_pixel_is_one_operator() -> None:
    assert kinds(lowered(lambda x: x[:, :, ::2, ::2], image())) == ["pool"]


def test_what_is_read_twice_is_selected_once() -> None:
    network = lowered(lambda x: (shuffled(x).relu(), shuffled(x).sigmoid()), image())
    assert kinds(network).count("select") == 1


@settings(max_examples=25)
@given(st.data())
def test_shuffles_slices_and_joins_in_a_row(data: st.DataObject) -> None:
    steps = data.draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=5))

    def forward(x: Tensor) -> Tensor:
        for kind, number in steps:
            channels = x.shape[1]
            if kind == 0 and channels % 2 == 0:
                x = x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
            elif kind == 1:
                x = torch.cat([x[:, number % channels :], x[:, : number % channels]], 1)
            elif kind == 2 and channels > 1:
                first, *rest = x.tensor_split(2, 1)
                x = torch.cat([*rest, first.relu()], 1)
            elif kind == 3 and channels < 16:
                x = torch.stack([x, x * 2], number % 2 + 1).flatten(1, 2)
            else:
                x = x.flip(1)
        return x

    lowered(forward, image(4, 3, 2))


PADDED: dict[str, Callable[[Tensor], Tensor]] = {
    "planes": lambda x: nn.functional.pad(x, (1, 2, 3, 0)),
    "cut": lambda x: nn.functional.pad(x, (-1, 2, 0, -3)),
    "channels": lambda x: nn.functional.pad(x, (0, 0, 0, 0, 1, 2)),
    "fewer channels": lambda x: nn.functional.pad(x, (0, 0, 0, 0, -1, 2)),
    "channels and pixels": lambda x: nn.functional.pad(x, (1, 1, 0, 0, 0, 3)),
    "rows of one": lambda x: nn.functional.pad(x[:, :, :1], (0, 1, 1, 1)) * 2,
    "vectors": lambda x: nn.functional.pad(x.mean((2, 3)), (1, 2)),
    "layer": lambda x: nn.ZeroPad2d(2)(x),
}


@pytest.mark.parametrize("name", PADDED)
def test_padding_with_zeros(name: str) -> None:
    lowered(PADDED[name], image())


REFUSED: dict[str, Callable[[Tensor], Any]] = {
    "repeated pixels": lambda x: x.repeat(1, 1, 2, 2),
    "repeated samples": lambda x: x.repeat(2, 1, 1, 1),
    "padding with ones": lambda x: nn.functional.pad(x, (1, 1), value=1.0),
    "casts": lambda x: x.long(),
    "no pixels": lambda x: x[:, :, 6:].sum((1, 2, 3)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_form_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedError):
        lower(Function(REFUSED[name]), image())


def test_planes_of_a_vector() -> None:
    lowered(lambda x: nn.functional.max_pool2d(x.view(-1, 2, 3, 1), (2, 1)), features(6))
