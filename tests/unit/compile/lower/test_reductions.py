"""Means, sums and largest numbers over any dimensions but the batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor, nn

from billhook.compile.lower import lower
from billhook.errors import UnsupportedError
from tests.unit.compile.exactness import Function, image, lowered

REDUCED: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean((2, 3)),
    "mean kept": lambda x: x.mean((-1, -2), keepdim=True),
    "mean of rows": lambda x: x.mean(2),
    "mean of columns": lambda x: x.mean(3, keepdim=True),
    "mean of flat pixels": lambda x: x.flatten(2).mean(-1),
    "mean of channels": lambda x: x.mean(1, keepdim=True) * x,
    "mean of all": lambda x: x.mean((1, 2, 3)),
    "mean of groups": lambda x: x.unflatten(1, (2, -1)).mean(1),
    "mean of both": lambda x: x.unflatten(1, (2, -1)).mean((2, 4)),
    "sum": lambda x: x.sum((2, 3)),
    "sum of channels": lambda x: x.sum(1),
    "largest": lambda x: x.amax((2, 3)),
    "largest of rows": lambda x: x.amax(2, keepdim=True),
    "largest channel": lambda x: x.amax(1, keepdim=True),
    "largest of all": lambda x: x.amax((1, 2, 3)),
    "largest and where": lambda x: x.max(1, keepdim=True)[0] + x.max(1, keepdim=True).values,
    "mean of pixels": lambda x: x.mean((2, 3), keepdim=True).mean((2, 3)),
}


@pytest.mark.parametrize("name", REDUCED)
@pytest.mark.parametrize("channels", [4, 6])
def test_reductions(name: str, channels: int) -> None:
    lowered(REDUCED[name], image(channels))


def test_places_of_the_largest_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="another result"):
        lower(Function(lambda x: x.max(1)[1].float()), image())
    with pytest.raises(UnsupportedError, match="another result"):
        lower(nn.MaxPool2d(2, return_indices=True), image())
