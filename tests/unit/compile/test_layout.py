"""Every shifted read meets a pixel or a zero, and buffers that are needed at the same time do not overlap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billhook.compile import layout as layouts
from billhook.compile.ir import RELU, Activate, Binary, Convolution, Mean, Network, Op, Port, Select, Value
from billhook.compile.layout import Layout, lay_out
from billhook.compile.passes.as_products import as_products
from billhook.compile.products import Product
from billhook.errors import TooLargeError


def network(x: Value, ops: list[Op]) -> Network:
    out = ops[-1].output
    ports = [Port(v.name, v, (v.channels, v.height, v.width)) for v in (x, out)]
    return as_products(Network(tuple(ops), (ports[0],), (ports[1],)))


def convolution(x: Value, name: str, outputs: int, kernel: int, **given_: int) -> Convolution:
    stride, padding = given_.get("stride", 1), given_.get("padding", kernel // 2)
    dilation = given_.get("dilation", 1)
    height, width = (
        (n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for n in (x.height, x.width)
    )
    return Convolution(
        (x,),
        Value(name, outputs, height, width),
        np.ones((outputs, x.channels, kernel, kernel), np.float32),
        np.zeros(outputs, np.float32),
        (stride, stride),
        (padding,) * 4,
        (dilation, dilation),
    )


def check_reads(product: Product, made: Layout) -> None:
    x, out = product.inputs[0], product.output
    form = made.geometry[x]
    assert made.geometry[out].pitch == form.pitch
    for plane, down, right in product.taps.reshape(-1, 3):
        origin = int(made.planes[x][plane])
        for row in range(out.height):
            for pixel in range(out.width):
                at = row * form.pitch + pixel + int(down * form.pitch + right)
                i, j = row + down, pixel + right
                if 0 <= i < x.height and 0 <= j < x.width:
                    assert at == i * form.pitch + j
                else:  # a zero of the same plane, never one of its pixels
                    assert -form.before <= at < form.size
                    assert not (0 <= at < x.height * form.pitch and at % form.pitch < x.width)
        assert origin % 16 == 0


@given(
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 2),
)
def test_shifted_reads_meet_pixels_or_zeros(
    height: int, width: int, kernel: int, stride: int, padding: int, dilation: int
) -> None:
    size = dilation * (kernel - 1) + 1
    x = Value("x", 2, height, width)
    if min(height, width) + 2 * padding < size:
        return
    op = convolution(x, "y", 3, kernel, stride=stride, padding=padding, dilation=dilation)
    if op.output.is_vector:
        return
    made_of = network(x, [op])
    made = lay_out(made_of)
    for each in made_of:
        if isinstance(each, Product):
            check_reads(each, made)


def test_selected_planes_have_the_margins_that_their_readers_need() -> None:
    x = Value("x", 2, 6, 6)
    a, b = convolution(x, "a", 2, 1), convolution(x, "b", 3, 1)
    both = Select((a.output, b.output), Value("both", 5, 6, 6), np.array([0, 2, 1, 3, 4], np.int32))
    net = network(x, [a, b, both, convolution(both.output, "y", 2, 5)])
    made = lay_out(net)
    product = net.ops[-1]
    assert isinstance(product, Product)
    check_reads(product, made)
    assert made.planes[both.output][1] == made.planes[b.output][0]


def test_values_live_at_the_same_time_have_places_of_their_own() -> None:
    x = Value("x", 4, 8, 8)
    first = convolution(x, "a", 4, 3)
    second = convolution(first.output, "b", 4, 3)
    third = convolution(second.output, "c", 4, 3)
    add = Binary((third.output, first.output), Value("sum", 4, 8, 8), "add", activation=RELU)
    net = network(x, [first, second, third, add, Mean((add.output,), Value("mean", 4))])
    made = lay_out(net)

    def floats(name: str) -> set[int]:
        value = next(v for v in net.values if v.name == name)
        form = made.geometry[value]
        spread = np.arange(-form.before, form.size) if form.stride > 1 else np.array([0])
        return set((made.planes[value][:, None] + spread).ravel().tolist())

    for one, other in [("x", "a"), ("a", "b"), ("a", "c"), ("b", "c"), ("c", "sum"), ("sum", "mean")]:
        assert not floats(one) & floats(other), (one, other)
    assert max(max(floats(v.name)) for v in net.values) < made.arena
    assert made.arena < sum(v.channels * made.geometry[v].stride for v in net.values)


def test_planes_do_not_fall_on_the_same_cache_lines() -> None:
    x = Value("x", 2, 16, 16)
    made = lay_out(network(x, [Activate((x,), Value("y", 2, 16, 16), activation=RELU)]))
    assert all(form.stride % 256 for form in made.geometry.values())


def test_a_network_beyond_the_addresses_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "LIMIT", 1000)
    x = Value("x", 16, 16, 16)
    with pytest.raises(TooLargeError, match="use smaller inputs"):
        lay_out(network(x, [Activate((x,), Value("y", 16, 16, 16), activation=RELU)]))


def depthwise(x: Value, name: str) -> Convolution:
    weight, bias = np.ones((4, 1, 3, 3), np.float32), np.zeros(4, np.float32)
    return Convolution((x,), Value(name, 4, x.height, x.width), weight, bias, padding=(1, 1, 1, 1), groups=4)


@pytest.mark.parametrize(("size", "pitch"), [(7, 8), (14, 16), (28, 29), (112, 113)])
def test_rows_fill_vectors_where_planes_do_not_grow(size: int, pitch: int) -> None:
    x = Value("x", 4, size, size)
    form = lay_out(network(x, [depthwise(x, "out")])).geometry[x]
    assert form.pitch == pitch
    assert form.vectors == -(-((size - 1) * (size + 1) + size) // 16)


def test_whole_vectors_fit_into_the_last_row_that_a_depthwise_convolution_writes() -> None:
    x = Value("x", 4, 112, 112)
    first = depthwise(x, "first")
    made = lay_out(network(x, [first, depthwise(first.output, "out")]))
    assert made.geometry[first.output].pitch == 113
    assert made.geometry[first.output].size >= 111 * 113 + 128
