"""Sums, products and the like, of tensors and of constants of any shape that broadcasts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from billhook.compile.lower import lower
from billhook.errors import UnsupportedError
from tests.unit.compile.exactness import Function, features, image, kinds, lowered

PER_CHANNEL = torch.tensor([0.5, -2.0, 3.0, 1.5])
COLUMN = PER_CHANNEL[:, None, None]

WITH_CONSTANTS: dict[str, Callable[[Tensor], Tensor]] = {
    "add": lambda x: x + 2.5,
    "add in multiples": lambda x: torch.add(x, 2.5, alpha=3),
    "subtract": lambda x: x - 0.25,
    "from a number": lambda x: 1 - x,
    "rsub": lambda x: torch.rsub(x, 1.5, alpha=2),
    "multiply": lambda x: 3 * x,
    "divide": lambda x: x / 3,
    "number divided": lambda x: 2 / (x.abs() + 1),
    "negative": lambda x: -x,
    "channels add": lambda x: x + COLUMN.to(x),
    "channels multiply": lambda x: COLUMN.to(x) * x,
    "channels divide": lambda x: x / COLUMN[None].to(x),
    "channels subtract": lambda x: COLUMN.to(x) - x,
    "channels divided": lambda x: COLUMN.to(x) / (x * x + 1),
    "maximum": lambda x: torch.maximum(x, torch.tensor(0.3).to(x)),
    "minimum": lambda x: torch.minimum(torch.tensor(0.3).to(x), x),
    "channels maximum": lambda x: torch.maximum(x, COLUMN.to(x)),
    "square": lambda x: x.square() + x**2 + x**3,
    "abs": lambda x: x.abs(),
    "more channels": lambda x: x[:, :1] * COLUMN.to(x),
    "ones of the batch": lambda x: x + torch.ones(x.shape[0], 4, 1, 1).to(x),
}


@pytest.mark.parametrize("name", WITH_CONSTANTS)
def test_a_tensor_and_a_constant(name: str) -> None:
    lowered(WITH_CONSTANTS[name], image())


@pytest.mark.parametrize("name", ["add", "multiply", "divide", "from a number", "channels add"])
def test_a_constant_makes_a_scale_and_a_shift(name: str) -> None:
    assert kinds(lowered(WITH_CONSTANTS[name], image())) == ["affine"]


def test_the_larger_of_a_tensor_and_a_number_is_an_activation() -> None:
    assert kinds(lowered(WITH_CONSTANTS["maximum"], image())) == ["activate"]


FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda x, y: x + y,
    "add in multiples": lambda x, y: torch.sub(x, y, alpha=2),
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / (y.abs() + 1),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}
SHAPES: dict[str, tuple[Tensor, Tensor]] = {
    "same": (image(), image() * 2 + 1),
    "number per channel": (image(), image(4, 1, 1)),
    "number per channel first": (image(4, 1, 1), image()),
    "number per pixel": (image(), image(1)),
    "number per pixel first": (image(1), image()),
    "number per sample": (image(), image(1, 1, 1)),
    "rows and columns": (image(4, 6, 1), image(4, 1, 5)),
    "as many rows as columns": (image(4, 5, 1), image(1, 1, 5)),
    "row": (image(), image(4, 1, 5)),
    "vectors": (features(6), features(6) + 1),
    "vector and number": (features(6), features(1)),
    "matrix": (image()[:, 0], image()[:, 1]),
}


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_two_tensors_of_shapes_that_broadcast(function: str, shapes: str) -> None:
    lowered(FUNCTIONS[function], *SHAPES[shapes])


def test_a_number_per_channel_is_not_spread_over_pixels() -> None:
    network = lowered(lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(), image())
    assert kinds(network) == ["mean", "activate", "binary"]
    assert network.ops[-1].inputs[1].is_vector


@pytest.mark.parametrize("swap", [False, True])
def test_a_number_per_channel_is_not_spread_because_the_code_says_so(swap: bool) -> None:
    def forward(x: Tensor) -> Tensor:
        weights = x.mean((2, 3), keepdim=True).expand_as(x)
        return weights * x if swap else x * weights

    assert kinds(lowered(forward, image())) == ["mean", "binary"]


def test_planes_of_one_number_each_are_combined() -> None:
    def forward(x: Tensor) -> Tensor:
        weights = x.mean((2, 3), keepdim=True).expand_as(x)
        return weights * weights - x

    lowered(forward, image())


@pytest.mark.parametrize(
    "function", [torch.add, torch.sub, torch.mul, torch.div, torch.maximum, torch.minimum]
)
@pytest.mark.parametrize("swap", [False, True])
def test_constants_that_differ_from_pixel_to_pixel(
    function: Callable[[Tensor, Tensor], Tensor], swap: bool
) -> None:
    def forward(c: Tensor, x: Tensor) -> Tensor:
        return function(c, x) if swap else function(x, c)

    generator = torch.Generator().manual_seed(0)
    x = image().abs() + 1
    lowered(Function(forward, c=torch.rand(6, 5, generator=generator) + 1), x)
    lowered(Function(forward, c=torch.rand(1, 4, 6, 5, generator=generator) + 1), x)


def test_constants_that_differ_from_sample_to_sample_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="sample to sample"):
        lower(Function(lambda x: x + torch.arange(2.0)[:, None]), features(6))


def test_rounding_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="floor"):
        lower(Function(lambda x: torch.div(x, 2, rounding_mode="floor")), image())


@pytest.mark.parametrize("exponent", [0.5, -1, 4])
def test_other_powers_are_refused(exponent: float) -> None:
    with pytest.raises(UnsupportedError, match="pow"):
        lower(Function(lambda x: x.abs() ** exponent), image())


EXPANDED: dict[str, Callable[[Tensor], Tensor]] = {
    "channels": lambda x: x[:, :1].expand(-1, 4, -1, -1) + x,
    "pixels": lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 6, 5).contiguous(),
    "as another": lambda x: x.amax((2, 3), keepdim=True).expand_as(x),
    "columns": lambda x: x.mean(3, keepdim=True).expand(-1, -1, -1, 7),
    "new dimension": lambda x: x[:, None].expand(-1, 3, -1, -1, -1).flatten(1, 2),
}


@pytest.mark.parametrize("name", EXPANDED)
def test_repeated_dimensions(name: str) -> None:
    lowered(EXPANDED[name], image())
