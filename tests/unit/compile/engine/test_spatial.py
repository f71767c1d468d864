"""COPY, POOL, MEAN, RESIZE and GATHER against PyTorch, on every instruction set, with threads and batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from billhook.compile.ir import RELU, Activation
from tests.unit.compile.engine.builder import Floats, Model, numbers

# Step, first pixel, size of the output: vertically, horizontally; of planes of 9 × 21 pixels.
COPIES = [
    ((1, 1), (0, 0), (9, 21)),
    ((1, 1), (-2, -3), (13, 27)),  # padding
    ((1, 1), (2, 5), (4, 3)),  # cropping
    ((1, 1), (-20, -40), (5, 6)),  # nothing but padding
    ((2, 2), (0, 0), (5, 11)),  # phases
    ((2, 2), (1, 1), (4, 10)),
    ((2, 2), (-1, -1), (6, 12)),
    ((2, 2), (-3, -3), (7, 17)),
    ((3, 4), (-1, 2), (4, 5)),
    ((1, 5), (0, -4), (9, 40)),
]
# Kernel, stride, padding (above, below, left, right), dilation.
WINDOWS = [
    ((2, 2), (2, 2), (0, 0, 0, 0), (1, 1)),
    ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((3, 2), (1, 3), (1, 1, 0, 1), (1, 1)),
    ((2, 3), (3, 2), (0, 1, 1, 0), (1, 1)),
    ((3, 3), (2, 2), (1, 2, 1, 2), (1, 1)),  # rounded up
    ((3, 3), (2, 2), (2, 2, 2, 2), (2, 2)),
    ((2, 3), (1, 1), (0, 0, 3, 3), (1, 3)),
    ((7, 7), (1, 1), (3, 3, 3, 3), (1, 1)),
]


@pytest.mark.parametrize(("step", "start", "size"), COPIES)
@pytest.mark.parametrize("channels", [3, 70])
def test_copy(step: tuple[int, int], start: tuple[int, int], size: tuple[int, int], channels: int) -> None:
    model = Model()
    x, y = model.reads(model.place(channels, 9, 21)), model.writes(model.place(channels, *size))
    model.instruction("copy", {**y.target(), **x.source(), **_steps(step, start)}, {"in": x.addresses[::-1]})
    given = numbers(channels, 9, 21)
    model.check([given], _copied(given[:, ::-1], step, start, size), 0)


@pytest.mark.parametrize(("step", "start", "size"), COPIES)
def test_copy_to_a_vector_writes_nothing_else(
    step: tuple[int, int], start: tuple[int, int], size: tuple[int, int]
) -> None:
    model = Model()
    pixels = size[0] * size[1]
    x = model.reads(model.place(5, 9, 21))
    y = model.writes(model.vector(5 * pixels + 3))
    args = {**x.source(), **_steps(step, start), "out": y.first + 2, "out_stride": pixels, "size": 0}
    args |= {"out_height": size[0], "out_width": size[1], "out_pitch": size[1]}
    model.instruction("copy", args, {"in": x.addresses}, RELU)
    given = numbers(5, 9, 21)
    flat = np.maximum(_copied(given, step, start, size), 0).reshape(len(given), -1)
    expected = np.full((len(given), y.channels), np.nan, np.float32)
    expected[:, 2 : 2 + 5 * pixels] = flat
    model.check([given], expected[..., None, None], 0)


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), WINDOWS)
@pytest.mark.parametrize("size", [(4, 13, 17), (20, 28, 26)])
def test_pool(
    mode: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    size: tuple[int, int, int],
) -> None:
    _check_pool(mode, kernel, stride, padding, dilation, size)


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize(
    ("kernel", "stride", "width"),
    [((1, 3), (1, 1), 2500), ((1, 3), (1, 2), 2500), ((2, 1100), (1, 3), 2500), ((1, 2), (1, 300), 9000)],
)
def test_pool_of_long_rows(mode: int, kernel: tuple[int, int], stride: tuple[int, int], width: int) -> None:
    _check_pool(mode, kernel, stride, (0, 0, 1, 1), (1, 1), (2, 3, width))


def test_a_mean_that_counts_some_of_the_padding_is_that_of_pytorch() -> None:
    model = Model()
    x, y = model.reads(model.place(2, 7, 9)), model.writes(model.place(2, 4, 5))
    args = {**_windows((3, 3), (2, 2), (1, 1), (1, 1)), "mode": 1, "area": 1 << 16 | 1}
    model.instruction("pool", {**y.target(), **x.source(), **args}, {"in": x.addresses})
    given = numbers(2, 7, 9)
    expected = functional.avg_pool2d(torch.from_numpy(given), 3, 2, 1, ceil_mode=True)
    model.check([given], expected.numpy())


def _check_depthwise(kernel: int, stride: int, padding: int, size: tuple[int, int, int], pad: int) -> None:
    channels, *pixels = size
    made = [(n + 2 * padding - kernel) // stride + 1 for n in pixels]
    weights, bias = numbers(channels, kernel, kernel, seed=1)[0], numbers(channels, seed=2)[0]
    given = numbers(*size)
    expected = functional.conv2d(
        torch.from_numpy(given).double(),
        torch.from_numpy(weights)[:, None].double(),
        torch.from_numpy(bias).double(),
        stride,
        padding,
        groups=channels,
    )
    for activation, function in ((RELU, torch.relu), (Activation("silu"), functional.silu)):
        model = Model()
        x = model.reads(model.place(*size, pad=max(pad, padding)))
        y = model.writes(model.place(channels, *made, pad=pad))
        args = {"kernel": kernel, "stride": stride, "top": padding, "left": padding}
        data = {"in": x.addresses[::-1], "weights": weights[::-1], "bias": bias[::-1]}
        model.instruction("depthwise", {**y.target(), **x.source(), **args}, data, activation)
        model.check([given], function(expected).float().numpy()[:, ::-1], 1e-5)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("size", [(3, 5, 6), (5, 9, 16), (20, 14, 17), (2, 23, 50)])
def test_depthwise(kernel: int, stride: int, padding: int, size: tuple[int, int, int]) -> None:
    _check_depthwise(kernel, stride, padding, size, 1)


@pytest.mark.parametrize(("kernel", "width"), [(3, 7), (3, 3), (3, 1), (5, 6), (5, 2)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("height", [1, 4, 7, 9])
def test_depthwise_with_two_rows_in_a_vector(kernel: int, stride: int, width: int, height: int) -> None:
    _check_depthwise(kernel, stride, kernel // 2, (3, height * stride, width * stride), kernel // 2)


@pytest.mark.parametrize("pad", [0, 3, 40])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_with_rows_far_apart_or_without_any_room(pad: int, stride: int) -> None:
    _check_depthwise(3, stride, 1, (3, 9, 21), pad)


@pytest.mark.parametrize("size", [(3, 1, 1), (5, 7, 7), (70, 31, 33), (2, 112, 112)])
def test_mean(size: tuple[int, int, int]) -> None:
    model = Model()
    x, y = model.reads(model.place(*size)), model.writes(model.vector(size[0]))
    model.instruction("mean", {"out": y.first, "out_stride": 1, **x.source()}, {"in": x.addresses}, RELU)
    given = numbers(*size) + 1
    model.check([given], np.maximum(given.mean((2, 3), keepdims=True), 0), 2e-6)


@pytest.mark.parametrize("size", [(3, 5, 7), (40, 20, 20)])
@pytest.mark.parametrize("target", [(10, 14), (5, 7), (3, 4), (17, 40), (6, 300)])
@pytest.mark.parametrize("mode", [0, 1, 2])
def test_resize(size: tuple[int, int, int], target: tuple[int, int], mode: int) -> None:
    model = Model()
    x, y = model.reads(model.place(*size)), model.writes(model.place(size[0], *target))
    pairs = list(zip(size[1:], target, strict=True))
    scale = np.array([(a - 1) / (b - 1) if mode == 2 else a / b for a, b in pairs], np.float32)
    bits = scale.view(np.uint32)
    args = {"mode": mode, "scale_y": int(bits[0]), "scale_x": int(bits[1])}
    model.instruction("resize", {**y.target(), **x.source(), **args}, {"in": x.addresses})
    given = numbers(*size)
    how = "nearest" if mode == 0 else "bilinear"
    corners = None if mode == 0 else mode == 2
    expected = functional.interpolate(torch.from_numpy(given), target, mode=how, align_corners=corners)
    model.check([given], expected.numpy(), 1e-5)


def _steps(step: tuple[int, int], start: tuple[int, int]) -> dict[str, int]:
    return {"step_y": step[0], "step_x": step[1], "from_y": start[0], "from_x": start[1]}


def _copied(given: Floats, step: tuple[int, int], start: tuple[int, int], size: tuple[int, int]) -> Floats:
    result = np.zeros((*given.shape[:2], *size), np.float32)
    for i in range(size[0]):
        for j in range(size[1]):
            y, x = i * step[0] + start[0], j * step[1] + start[1]
            if 0 <= y < given.shape[2] and 0 <= x < given.shape[3]:
                result[:, :, i, j] = given[:, :, y, x]
    return result


def _windows(
    kernel: tuple[int, int], stride: tuple[int, int], corner: tuple[int, int], dilation: tuple[int, int]
) -> dict[str, int]:
    return {
        **{"kernel_y": kernel[0], "kernel_x": kernel[1], "stride_y": stride[0], "stride_x": stride[1]},
        **{"top": corner[0], "left": corner[1], "dilation_y": dilation[0], "dilation_x": dilation[1]},
    }


def _check_pool(
    mode: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    size: tuple[int, int, int],
) -> None:
    top, bottom, left, right = padding
    given = numbers(*size)
    fill = -np.inf if mode == 0 else 0.0
    widths = ((0, 0), (0, 0), (top, bottom), (left, right))
    windows = _unfolded(np.pad(given, widths, constant_values=fill), kernel, stride, dilation)
    inside = _unfolded(np.pad(np.ones_like(given), widths), kernel, stride, dilation)
    if mode == 0:
        expected = windows.max((-2, -1))
    else:
        count = float(kernel[0] * kernel[1]) if mode == 1 else inside.sum((-2, -1))
        expected = (windows.astype(np.float64).sum((-2, -1)) / count).astype(np.float32)
    model = Model()
    x, y = model.reads(model.place(*size)), model.writes(model.place(size[0], *expected.shape[2:]))
    args = {**_windows(kernel, stride, (top, left), dilation), "mode": mode, "area": bottom << 16 | right}
    model.instruction("pool", {**y.target(), **x.source(), **args}, {"in": x.addresses})
    model.check([given], expected, 2e-6)


def _unfolded(
    x: Floats, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> Floats:
    """Windows of x: [batch, channels, rows, columns, kernel height, kernel width]."""
    spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    found = np.lib.stride_tricks.sliding_window_view(x, spans, (2, 3))
    return found[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


@pytest.mark.parametrize("size", [(3, 7, 7), (40, 13, 50), (2, 1, 1)])
@pytest.mark.parametrize("target", [(3, 3), (5, 17), (1, 2), (13, 60)])
@pytest.mark.parametrize("largest", [True, False])
def test_pool_with_windows_that_cover_the_plane(
    size: tuple[int, int, int], target: tuple[int, int], largest: bool
) -> None:
    model = Model()
    x, y = model.reads(model.place(*size)), model.writes(model.place(size[0], *target))
    windows = {f"{name}_{axis}": 1 for name in ("kernel", "stride", "dilation") for axis in "yx"}
    args = {**y.target(), **x.source(), "mode": 4 if largest else 5, **windows}
    model.instruction("pool", args, {"in": x.addresses}, RELU)
    given = numbers(*size)
    pool = functional.adaptive_max_pool2d if largest else functional.adaptive_avg_pool2d
    model.check([given], pool(torch.from_numpy(given), target).relu().numpy())


@pytest.mark.parametrize("size", [(3, 4, 5), (20, 9, 23), (70, 3, 64)])
@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_gather(size: tuple[int, int, int], step: int) -> None:
    channels, height, width = size
    rng = np.random.default_rng(step)
    pixels = np.arange(width) * step if step else rng.integers(0, 2 * width, width)
    wide = int(pixels.max()) + 1
    planes, lines = rng.integers(0, 5, (channels, height)), rng.integers(0, 6, (channels, height))
    model = Model()
    x, y = model.reads(model.place(5, 6, wide)), model.writes(model.place(*size))
    rows = (x.addresses[planes] + lines * x.pitch).astype(np.int32)
    columns = {} if step else {"columns": pixels.astype(np.int32)}
    model.instruction("gather", {**y.target(), "step": step}, {"rows": rows, **columns}, RELU)
    given = numbers(5, 6, wide)
    expected = given[:, planes[..., None], lines[..., None], pixels]
    model.check([given], np.maximum(expected, 0), 0)


def test_gather_from_planes_to_a_vector() -> None:
    model = Model()
    x, y = model.reads(model.place(7, 3, 4)), model.writes(model.vector(7))
    args = {**y.target(), "size": 0, "out_pitch": 1, "step": 1}
    model.instruction("gather", args, {"rows": (x.addresses + x.pitch + 2)[::-1]})
    given = numbers(7, 3, 4)
    model.check([given], given[:, ::-1, 1:2, 2:3], 0)
