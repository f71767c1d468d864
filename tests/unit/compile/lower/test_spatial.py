"""Pooling of any geometry, and resizing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from billhook.compile.lower import lower
from billhook.errors import UnsupportedError
from tests.unit.compile.exactness import Function, image, kinds, lowered

sizes = st.tuples(st.integers(1, 4), st.integers(1, 4))


@settings(max_examples=40)
@given(
    kernel=sizes, stride=sizes, padding=sizes, dilation=sizes, ceil=st.booleans(), height=st.integers(4, 9)
)
def test_max_pools_of_any_geometry(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    ceil: bool,
    height: int,
) -> None:
    padding = min(padding[0] - 1, kernel[0] // 2), min(padding[1] - 1, kernel[1] // 2)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    assume(reach[0] <= height + 2 * padding[0] and reach[1] <= 8 + 2 * padding[1])
    lowered(nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil), image(3, height, 8))


@settings(max_examples=60)
@given(
    kernel=sizes,
    stride=sizes,
    padding=sizes,
    ceil=st.booleans(),
    counted=st.booleans(),
    divisor=st.sampled_from([None, 3]),
    height=st.integers(4, 9),
)
def test_average_pools_of_any_geometry(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    ceil: bool,
    counted: bool,
    divisor: int | None,
    height: int,
) -> None:
    padding = min(padding[0] - 1, kernel[0] // 2), min(padding[1] - 1, kernel[1] // 2)
    pool = nn.AvgPool2d(kernel, stride, padding, ceil, counted, divisor)
    try:
        lowered(pool, image(3, height, 8))
    except UnsupportedError:
        assert divisor is not None  # the sum of a window without its padding has no form


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 12, (1, 2), (None, 1), (2, 12)])
@pytest.mark.parametrize("kind", [nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d])
def test_adaptive_pools_with_equal_windows(kind: type[nn.Module], size: object) -> None:
    lowered(kind(size), image(3, 6, 6))


@settings(max_examples=30)
@given(size=sizes, made=st.tuples(st.integers(1, 9), st.integers(1, 9)), largest=st.booleans())
def test_adaptive_pools_with_windows_of_any_size(
    size: tuple[int, int], made: tuple[int, int], largest: bool
) -> None:
    lowered((nn.AdaptiveMaxPool2d if largest else nn.AdaptiveAvgPool2d)(made), image(3, *size))


def test_an_adaptive_pool_with_uneven_windows_is_one_operator() -> None:
    assert kinds(lowered(nn.AdaptiveAvgPool2d(4), image(3, 6, 6))) == ["cover"]
    assert kinds(lowered(nn.AdaptiveAvgPool1d(4), torch.randn(2, 3, 6))) == ["cover"]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.MaxPool2d((1, 70000)), "kernel of 70000; the engine takes up to 65535"),
        (nn.AvgPool2d((1, 2), (1, 70000)), "stride of 70000"),
        (nn.MaxPool2d((1, 2), 1, dilation=(1, 70000)), "dilation of 70000"),
        (nn.Conv2d(1, 1, (1, 2), stride=(1, 70000)), "stride of 70000"),
        (Function(lambda x: x[..., ::70000]), "stride of 70000"),
    ],
)
def test_windows_that_the_engine_cannot_count_are_refused(layer: nn.Module, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        lower(layer, image(1, 1, 140001, batch=1))


def test_an_adaptive_pool_to_the_same_size_makes_no_operator() -> None:
    assert kinds(lowered(lambda x: functional.adaptive_avg_pool2d(x, (6, 5)).relu(), image())) == ["activate"]


RESIZED: dict[str, Callable[[Tensor], Tensor]] = {
    "doubled": lambda x: functional.interpolate(x, scale_factor=2),
    "by size": lambda x: functional.interpolate(x, size=(13, 7)),
    "smaller": lambda x: functional.interpolate(x, size=(4, 3)),
    "by odd factors": lambda x: functional.interpolate(x, scale_factor=(1.7, 2.3)),
    "bilinear": lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear by size": lambda x: functional.interpolate(x, size=(13, 3), mode="bilinear"),
    "bilinear corners": lambda x: functional.interpolate(x, (11, 9), mode="bilinear", align_corners=True),
    "bilinear to one": lambda x: functional.interpolate(x, (1, 9), mode="bilinear", align_corners=True),
    "bilinear by odd factors": lambda x: functional.interpolate(x, scale_factor=1.3, mode="bilinear"),
    "bilinear of one pixel": lambda x: functional.interpolate(x.mean((2, 3), True), (4, 4), mode="bilinear"),
    "layer": lambda x: nn.UpsamplingBilinear2d(scale_factor=3)(x),
}


@pytest.mark.parametrize("name", RESIZED)
def test_resizing(name: str) -> None:
    assert "resize" in kinds(lowered(RESIZED[name], image()))


@pytest.mark.parametrize("mode", ["nearest-exact", "area"])
@pytest.mark.parametrize("size", [(4, 3), (9, 7), (6, 10)])
def test_other_ways_of_resizing(mode: str, size: tuple[int, int]) -> None:
    lowered(lambda x: functional.interpolate(x, size, mode=mode), image())


@pytest.mark.parametrize("mode", ["nearest", "linear", "nearest-exact", "area"])
def test_resizing_of_sequences(mode: str) -> None:
    x = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    lowered(lambda x: functional.interpolate(x, 11, mode=mode), x)
    lowered(lambda x: functional.interpolate(x, scale_factor=0.6, mode=mode), x)


def test_bicubic_resizing_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="upsample_bicubic2d"):
        lower(Function(lambda x: functional.interpolate(x, (4, 3), mode="bicubic")), image())


@pytest.mark.parametrize(
    ("mode", "sides"),
    [
        *product(("reflect", "replicate", "circular"), [(1, 2, 3, 0), (4, 0, 0, 5)]),
        *product(("reflect", "replicate"), [(-1, 2, 1, -2)]),  # torch does not cut circular borders
    ],
)
def test_borders_that_repeat_pixels(mode: str, sides: tuple[int, int, int, int]) -> None:
    lowered(lambda x: functional.pad(x, sides, mode=mode), image(3, 6, 6))
    lowered(lambda x: functional.pad(x[:, :, 0], sides[:2], mode=mode), image(3, 6, 6))


@settings(max_examples=20)
@given(
    factor=st.integers(1, 3), channels=st.integers(1, 3), height=st.integers(1, 4), width=st.integers(1, 5)
)
def test_pixel_shuffles(factor: int, channels: int, height: int, width: int) -> None:
    x = image(channels * factor**2, height, width)
    assert len(kinds(lowered(nn.PixelShuffle(factor), x))) <= 1
    lowered(nn.PixelUnshuffle(factor), image(channels, height * factor, width * factor))
