"""The arithmetic of folding, against the layers that it stands for."""

from __future__ import annotations

from itertools import cycle, product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv1d

from billhook.fuse._algebra import (
    Window,
    embedded,
    folded_before,
    folded_behind,
    joined,
    pixel,
    scale_and_shift,
    side_by_side,
    total,
)

X = torch.randn(2, 8, 11, dtype=torch.float64)
SIZE = (11,)
SCALE, SHIFT = torch.rand(8, dtype=torch.float64) + 0.5, torch.randn(8, dtype=torch.float64)
BIAS = torch.randn(8, dtype=torch.float64)

WINDOWS = [
    Window(8, 8, (k,), (s,), (p,), (d,), g)
    for (k, s, p, d), g in zip(
        product((1, 2, 3), (1, 2), (0, 1, 2), (1, 2)), cycle((1, 2, 4, 8, 1)), strict=False
    )
]


def weight_of(window: Window) -> Tensor:
    return torch.randn(8, 8 // window.groups, *window.kernel, dtype=torch.float64)


def convolve(window: Window, weight: Tensor, bias: Tensor | None = None, x: Tensor = X) -> Tensor:
    return conv1d(x, weight, bias, window.stride, window.padding, window.dilation, window.groups)


def test_two_convolutions_are_one_in_their_common_window() -> None:
    compared = 0
    for a, b in product(WINDOWS, WINDOWS):
        both = joined(a, b)
        if a.stride != b.stride or not a.image(SIZE) == b.image(SIZE) == both.image(SIZE):
            continue
        first, second = weight_of(a), weight_of(b)
        merged = embedded(first, a, both) + embedded(second, b, both)
        torch.testing.assert_close(convolve(both, merged), convolve(a, first) + convolve(b, second))
        assert both.macs == merged.numel()
        compared += 1
    assert compared > len(WINDOWS)  # not only each with itself


@pytest.mark.parametrize(
    "window", WINDOWS, ids=lambda w: f"{w.kernel}{w.stride}{w.padding}{w.dilation}{w.groups}"
)
def test_a_common_window_is_no_larger_than_needed(window: Window) -> None:
    assert joined(window, window).reach == window.reach
    assert convolve(window, weight_of(window)).shape[2:] == window.image(SIZE)
    if 0 in window.reach[0]:
        assert joined(window, pixel(8, 1)).macs == window.macs


def test_a_1x1_kernel_goes_to_the_centre() -> None:
    three = Window(2, 2, (3, 3), (1, 1), (1, 1), (1, 1))
    both = joined(three, pixel(2, 2))
    assert both == three
    identity = embedded(torch.ones(2, 1, 1, 1), pixel(2, 2), both)
    torch.testing.assert_close(identity, nn.init.dirac_(torch.empty(2, 2, 3, 3)))


def test_a_linear_layer_is_a_convolution_without_pixels() -> None:
    layer = Window(3, 3, (), (), (), ())
    assert joined(layer, pixel(3, 0)) == layer
    assert layer.image(()) == ()
    assert layer.macs == 9
    torch.testing.assert_close(embedded(torch.ones(3, 1), pixel(3, 0), layer), torch.eye(3))


@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_norm_is_a_scale_and_a_shift(affine: bool) -> None:
    norm = nn.BatchNorm1d(8, eps=0.1, affine=affine).double().eval()
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    scale, shift = scale_and_shift(norm)
    expected = batch_norm(X, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=0.1)
    torch.testing.assert_close(X * scale[:, None] + shift[:, None], expected.detach())


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("bias", [None, BIAS])
def test_a_scale_and_a_shift_go_into_a_convolution(groups: int, bias: Tensor | None) -> None:
    window = Window(8, 8, (3,), (1,), (0,), (1,), groups)
    weight = weight_of(window)
    behind = folded_behind(weight, bias, SCALE, SHIFT)
    expected = convolve(window, weight, bias) * SCALE[:, None] + SHIFT[:, None]
    torch.testing.assert_close(convolve(window, *behind), expected)
    before = folded_before(weight, bias, groups, SCALE, SHIFT)
    expected = convolve(window, weight, bias, X * SCALE[:, None] + SHIFT[:, None])
    torch.testing.assert_close(convolve(window, *before), expected)


@pytest.mark.parametrize("fold", [folded_behind, lambda w, b, s, t: folded_before(w, b, 1, s, t)])
def test_no_shift_makes_no_bias(fold: Any) -> None:
    none = torch.zeros(1, dtype=torch.float64)
    weight, bias = fold(torch.ones(8, 8), None, 2 * torch.ones(1), none)
    assert bias is None
    assert bool((weight == 2).all())


def test_missing_biases_are_zeros() -> None:
    assert total(None, None) is None
    assert total(None, BIAS) is total(BIAS, None) is BIAS
    assert side_by_side(None, None, (1, 2)) is None
    torch.testing.assert_close(side_by_side(None, BIAS, (2, 8))[:3], torch.cat((torch.zeros(2), BIAS[:1])))
