"""Convolutions become products of stride 1, whatever their windows are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from billhook.compile.ir import Linear, Network
from billhook.compile.lower import lower
from billhook.compile.passes import run_passes
from billhook.compile.passes.as_products import as_products
from billhook.compile.products import Depthwise, Phases, Product
from tests.unit.compile.exactness import Function, assert_equal, image, kinds


def product(model: nn.Module, x: torch.Tensor) -> Network:
    """Return the network after the pass, which must compute the same and leave no convolution."""
    network = as_products(run_passes(lower(model, x)))
    assert "convolution" not in kinds(network)
    assert_equal(network, model, x)
    return network


@given(
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 2, 4]),
)
def test_any_window_becomes_a_product(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> None:
    for n, k, p, d in zip(size, kernel, padding, dilation, strict=True):
        assume(n + 2 * p >= d * (k - 1) + 1)
    torch.manual_seed(0)
    product(nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups), image(4, *size))


def test_only_phases_that_are_read_are_made() -> None:
    network = product(nn.Conv2d(4, 2, 1, stride=2), image(4, 6, 6))
    (phases,) = (op for op in network if isinstance(op, Phases))
    assert phases.phases == ((0, 0),)


def test_windows_of_one_value_share_its_phases() -> None:
    model = Function(
        lambda a, b, x: a(x) + b(x),
        nn.Conv2d(4, 4, 3, stride=2, padding=1),
        nn.Conv2d(4, 4, 3, stride=2, padding=1),
    )
    assert kinds(product(model, image(4, 8, 8))).count("phases") == 1


@pytest.mark.parametrize("size", [1, 3])
def test_what_makes_one_pixel_becomes_linear(size: int) -> None:
    network = product(nn.Conv2d(4, 6, size, groups=2), image(4, size, size))
    assert isinstance(network.ops[-1], Linear)


def test_weights_are_shared_out_over_taps_by_group() -> None:
    (op,) = product(nn.Conv2d(4, 4, 3, padding=1, groups=2), image(4, 6, 6)).ops
    assert isinstance(op, Product)
    assert op.weight.shape == (2, 2, 18)
    assert [taps[0][0] for taps in op.taps] == [0, 2]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
def test_depthwise_windows_are_read_where_they_lie(size: int, stride: int) -> None:
    layer = nn.Conv2d(4, 4, size, stride, size // 2, groups=4)
    assert [type(op) for op in product(layer, image(4, 9, 8))] == [Depthwise]


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(4, 4, 7, padding=3, groups=4), nn.Conv2d(4, 8, 3, padding=1, groups=4)]
)
def test_other_windows_for_each_plane_stay_products(layer: nn.Conv2d) -> None:
    assert isinstance(product(layer, image(4, 9, 8)).ops[-1], Product)
