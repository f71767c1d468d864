"""Zeros around planes become the padding of what reads them, where zeros count as pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, nn
from torch.nn import functional

from billhook.compile.lower import lower
from billhook.compile.passes.drop_unused import drop_unused
from billhook.compile.passes.fold_padding import fold_padding
from tests.unit.compile.exactness import Function, assert_equal, image, kinds


def pad(x: Tensor) -> Tensor:
    return functional.pad(x, (1, 2, 0, 3))


FORWARDS: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "convolution": (lambda conv, x: conv(pad(x)), ["convolution"]),
    "several readers": (lambda conv, x: conv(y := pad(x)) + conv(y), ["convolution"] * 2 + ["binary"]),
    "average": (lambda conv, x: functional.avg_pool2d(pad(x), 3, 2, 1), ["pool"]),
    "average without zeros": (
        lambda conv, x: functional.avg_pool2d(pad(x), 3, 2, 1, count_include_pad=False),
        ["pad", "pool"],
    ),
    "largest": (lambda conv, x: functional.max_pool2d(pad(x), 2), ["pad", "pool"]),
    "cut": (lambda conv, x: conv(functional.pad(x, (-1, 1, 0, 0))), ["pad", "convolution"]),
    "an output": (lambda conv, x: (conv(y := pad(x)), y), ["pad", "convolution"]),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_padding_moves_into_windows(name: str) -> None:
    function, left = FORWARDS[name]
    model = Function(function, nn.Conv2d(4, 4, 3, padding=1, stride=1))
    network = drop_unused(fold_padding(lower(model, image())))
    assert_equal(network, model, image())
    assert kinds(network) == left
