"""Pooling of any geometry, and resizing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
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


def test_adaptive_pools_with_other_windows_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="different sizes"):
        lower(nn.AdaptiveAvgPool2d(4), image(3, 6, 6))


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


@pytest.mark.parametrize("mode", ["bicubic", "nearest-exact", "area"])
def test_other_ways_of_resizing_are_refused(mode: str) -> None:
    with pytest.raises(UnsupportedError):
        lower(Function(lambda x: functional.interpolate(x, (4, 3), mode=mode)), image())
