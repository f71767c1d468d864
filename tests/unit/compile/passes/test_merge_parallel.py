"""Sums of linear functions of one value become one of them, where that is no more work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from billhook.compile import reference
from billhook.compile.ir import Convolution, Network
from billhook.compile.lower import lower
from billhook.compile.passes import run_passes
from billhook.compile.passes.fold_affine import fold_affine
from billhook.compile.passes.merge_parallel import merge_parallel
from tests.unit.compile.exactness import Function, assert_equal, features, image, kinds


def merged(function: Callable[..., Any], *layers: nn.Module, x: Tensor | None = None) -> Network:
    """Return the network after the pass, which must compute the same."""
    model = Function(function, *layers).eval()
    given_x = image() if x is None else x
    network = merge_parallel(fold_affine(lower(model, given_x)))
    assert_equal(network, model, given_x)
    return network


def conv(size: int | tuple[int, int] = 1, outputs: int = 4, **options: Any) -> nn.Conv2d:
    """Return a convolution of 4 channels."""
    return nn.Conv2d(4, outputs, size, **options)


def same(size: int = 3, **options: Any) -> nn.Conv2d:
    """Return a convolution that keeps the size of planes."""
    return conv(size, padding=size // 2, **options)


ONE: dict[str, tuple[Callable[..., Any], list[nn.Module]]] = {
    "two of one size": (lambda a, b, x: a(x) + b(x), [conv(), conv()]),
    "difference": (lambda a, b, x: a(x) - b(x), [conv(), conv()]),
    "3x3 and 1x1": (lambda a, b, x: a(x) + b(x), [same(), conv()]),
    "5x5 and 3x3 and 1x1": (lambda a, b, c, x: a(x) + b(x) + c(x), [same(5), same(), conv()]),
    "1x3 and 3x1": (
        lambda a, b, x: a(x) + b(x),
        [conv((1, 3), padding=(0, 1)), conv((3, 1), padding=(1, 0))],
    ),
    "with x": (lambda a, x: a(x) + x, [same()]),
    "with x twice": (lambda a, x: x + a(x) + x, [same()]),
    "minus x": (lambda a, x: a(x) - x, [same()]),
    "x minus it": (lambda a, x: x - a(x), [same()]),
    "with a batch norm": (lambda a, n, x: a(x) + n(x), [same(), nn.BatchNorm2d(4)]),
    "RepVGG": (
        lambda a, b, n, x: a(x) + b(x) + n(x),
        [same(), conv(), nn.BatchNorm2d(4)],
    ),
    "stride": (lambda a, b, x: a(x) + b(x), [conv(3, stride=2, padding=1), conv(1, stride=2)]),
    "dilation": (lambda a, b, x: a(x) + b(x), [conv(3, dilation=2, padding=2), conv()]),
    "depthwise": (lambda a, b, x: a(x) + b(x) + x, [same(groups=4), conv(groups=4)]),
    "groups": (lambda a, b, x: a(x) + b(x) + x, [same(groups=2), conv(groups=2)]),
}


@pytest.mark.parametrize("name", ONE)
def test_one_convolution_is_left(name: str) -> None:
    function, layers = ONE[name]
    assert kinds(merged(function, *layers)) == ["convolution"]


def test_linear_layers_become_one() -> None:
    layers = nn.Linear(6, 3), nn.Linear(6, 3)
    assert kinds(merged(lambda a, b, x: (a(x) + b(x)) / 2, *layers, x=features(6))) == ["linear", "affine"]


def test_scales_become_one() -> None:
    assert kinds(merged(lambda x: x * 2 + x * 3 + x)) == ["affine"]
    assert kinds(merged(lambda x: x + x)) == ["affine"]


def test_the_rest_of_a_sum_is_added() -> None:
    network = merged(lambda a, b, x: a(x) + x.tanh() + b(x) - x.sigmoid(), same(), conv())
    assert sorted(kinds(network)) == ["activate", "activate", "binary", "binary", "convolution"]


def test_the_multiplications_of_a_repvgg_block_are_those_of_its_largest_kernel() -> None:
    function, layers = ONE["RepVGG"]
    model = Function(function, *layers).eval()
    (op,) = run_passes(lower(model, image()))
    assert isinstance(op, Convolution)
    assert op.weight.shape == (4, 4, 3, 3)


STAY: dict[str, tuple[Callable[..., Any], list[nn.Module]]] = {
    "activation": (lambda a, b, x: a(x).relu() + b(x), [conv(), conv()]),
    "read twice": (lambda a, b, x: (y := a(x)) + b(x) + y.relu(), [conv(), conv()]),
    "different inputs": (lambda a, b, x: a(x) + b(x.relu()), [conv(), conv()]),
    "different groups": (lambda a, b, x: a(x) + b(x), [conv(), conv(groups=2)]),
    "different dilations": (
        lambda a, b, x: a(x) + b(x),
        [conv(3, padding=2, dilation=2), same()],
    ),
    "a bound between": (lambda a, b, x: (a(x) + x).relu() + b(x.relu()), [conv(groups=4), conv(groups=2)]),
}


@pytest.mark.parametrize("name", STAY)
def test_other_sums_stay(name: str) -> None:
    function, layers = STAY[name]
    network = merged(function, *layers)
    if name != "a bound between":
        assert kinds(network).count("convolution") == 2
    assert kinds(network).count("convolution") + kinds(network).count("binary") >= 3


def test_what_would_be_more_work_stays() -> None:
    layer = nn.Conv2d(32, 32, 1)
    with torch.no_grad():
        layer.weight[:16] = 0
        layer.weight[16:, 8:] = 0
    x = image(32)
    assert kinds(merged(lambda a, x: a(x) + x, layer, x=x)) == ["convolution", "binary"]


def test_zeros_stay_zeros() -> None:
    layers = same(), conv()
    with torch.no_grad():
        for layer in layers:
            layer.weight[1] = 0
            layer.weight[:, 2] = 0
    (op,) = merged(lambda a, b, x: a(x) + b(x), *layers)
    assert isinstance(op, Convolution)
    assert not op.weight[1].any()
    assert not op.weight[:, 2].any()


def short(layer: nn.Conv2d) -> nn.Conv2d:
    """Return the layer with weights of a few bits, which float32 adds without rounding."""
    with torch.no_grad():
        for tensor in layer.parameters():
            tensor.copy_((tensor * 64).round() / 64)
    return layer


@given(
    sizes=st.lists(st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3])), min_size=2, max_size=3),
    stride=st.integers(1, 3),
    extra=st.integers(0, 2),
)
@settings(max_examples=25, deadline=None)
def test_kernels_of_any_size_are_laid_over_each_other(
    sizes: list[tuple[int, int]], stride: int, extra: int
) -> None:
    layers = [
        nn.Conv2d(4, 3, size, stride=stride, padding=(size[0] // 2 + extra, size[1] // 2 + extra))
        for size in sizes
    ]
    model = Function(lambda *all_: sum(layer(all_[-1]) for layer in all_[:-1]), *map(short, layers))
    before = fold_affine(lower(model, image(4, 9, 8)))  # a sum begins with + 0
    after = merge_parallel(before)
    assert len(after.ops) < len(before.ops)
    x = [image(4, 9, 8).double().numpy()]
    (a,), (b,) = reference.run(before, x), reference.run(after, x)
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)
