"""Lowering of pooling, resizing and padding."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from billhook.compile.ir import Mean, Pair, Pool, Resize, Value
from billhook.compile.lower.arithmetic import affine, spread
from billhook.compile.lower.base import Builder, Refusal, operator
from billhook.compile.lower.constants import constant_planes
from billhook.compile.lower.parameters import pair
from billhook.compile.lower.turned import Turned, turned
from billhook.compile.lower.view import Shape, View
from billhook.compile.lower.views import pad, pick
from billhook.compile.planes import Cover
from billhook.graph.rules._base import Call

Mode = Literal["max", "average", "average_inside"]


@dataclass(frozen=True)
class _Pooling:
    """What a pooling operator reads and makes.

    Attributes:
        dims: Spatial dimensions.
        x: What is read.
        source: The same as a value.
        shape: Of a sample of the result.
        size: Rows and pixels of the result.
        several: Whether there are other results (numbers of the largest pixels).
    """

    dims: int
    x: View
    source: Value
    shape: Shape
    size: Pair
    several: bool


def _pooling(build: Builder, call: Call) -> _Pooling:
    dims = 1 if "1d" in call.name else 2
    x = build.tensor(call)
    source = build.image(x, call.node.name, dims)
    several = isinstance(call.node.meta["val"], (tuple, list))
    shape = build.shape(call, 0 if several else None)
    return _Pooling(dims, x, source, shape, (1 if dims == 1 else shape[1], shape[-1]), several)


@operator("max_pool2d max_pool2d_with_indices max_pool1d")
def _max_pool(build: Builder, call: Call) -> Any:
    p = _pooling(build, call)
    dims, source, shape, size = p.dims, p.source, p.shape, p.size
    kernel, dilation = pair(call["kernel_size"], dims), pair(call["dilation"], dims)
    stride = pair(call["stride"] or call["kernel_size"], dims)
    reach = (dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1)
    declared = pair(call["padding"], dims, fill=0)
    padding = _needed((source.height, source.width), size, reach, stride, declared)
    made = build.run(
        Pool,
        call,
        [source],
        (shape[0], *size),
        mode="max",
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )
    view = build.view(made, shape)
    return [view, None] if p.several else view


def _needed(size: Pair, made: Pair, reach: Pair, stride: Pair, padding: Pair) -> tuple[int, int, int, int]:
    """Return zeros on all sides so that `made` pixels come out; if rounded up, more below and right."""
    ends = [
        max(p, (m - 1) * s + r - n - p)
        for n, m, r, s, p in zip(size, made, reach, stride, padding, strict=True)
    ]
    return padding[0], ends[0], padding[1], ends[1]


@operator("avg_pool2d avg_pool1d")
def _average_pool(build: Builder, call: Call) -> View:
    p = _pooling(build, call)
    dims, x, source, shape, size = p.dims, p.x, p.source, p.shape, p.size
    kernel = pair(call["kernel_size"], dims)
    stride = pair(call["stride"] or call["kernel_size"], dims)
    declared = pair(call["padding"], dims, fill=0)
    padding = _needed((source.height, source.width), size, kernel, stride, declared)
    inside = not call["count_include_pad"]
    grown = padding != (declared[0], declared[0], declared[1], declared[1])
    if grown and not inside and any(declared):
        # Declared zeros count, those of a rounded-up size do not: the former become pixels.
        above, left = declared
        padded = (shape[0], source.height + 2 * above, source.width + 2 * left)
        x = pad(build, call, x, (above, above, left, left), (padded[0], *padded[-dims:]))
        source = build.read(x, call.node.name)
        padding = (0, padding[1] - above, 0, padding[3] - left)
    mode: Mode = "average_inside" if inside or grown else "average"
    override = call.get("divisor_override")
    if override and mode == "average_inside" and any(padding):
        raise Refusal("has a divisor of its own and counts no padding")
    made = build.run(
        Pool, call, [source], (shape[0], *size), mode=mode, kernel=kernel, stride=stride, padding=padding
    )
    view = build.view(made, shape)
    if override:
        view = affine(build, call, view, np.array(kernel[0] * kernel[1] / override), np.zeros(()))
    return view


@operator(
    "adaptive_avg_pool2d adaptive_max_pool2d _adaptive_avg_pool2d adaptive_avg_pool1d adaptive_max_pool1d"
)
def _adaptive_pool(build: Builder, call: Call) -> Any:
    p = _pooling(build, call)
    x, source, shape, size = p.x, p.source, p.shape, p.size
    largest = "max" in call.name
    if size == (1, 1) and not largest:
        made = source if source.is_vector else build.run(Mean, call, [source], (shape[0], 1, 1))
        return build.view(made, shape) if made is not source else build.reshape(x, shape, call.node.name)
    windows = [_windows(n, m) for n, m in zip((source.height, source.width), size, strict=True)]
    down, across = windows
    if down is None or across is None:
        kind = "max" if largest else "average"
        view = build.view(build.run(Cover, call, [source], (shape[0], *size), mode=kind), shape)
        return [view, None] if p.several else view
    (height, step_y), (width, step_x) = down, across
    if (height, width, step_y, step_x) != (1, 1, 1, 1):
        pooled = ((source.height - height) // step_y + 1, (source.width - width) // step_x + 1)
        mode: Mode = "max" if largest else "average"
        source = build.run(
            Pool,
            call,
            [source],
            (shape[0], *pooled),
            mode=mode,
            kernel=(height, width),
            stride=(step_y, step_x),
        )
    if (source.height, source.width) == size:
        view = build.reshape(x, shape, call.node.name) if x.shape == shape else build.view(source, shape)
    else:
        view = spread(build, call, build.view(source), size, shape)
    return [view, None] if p.several else view


def _windows(pixels: int, made: int) -> Pair | None:
    """Return the length and the step of equal windows, None for others.

    They are (1, 1) where each pixel is repeated equally often.
    """
    if made % pixels == 0:
        return 1, 1
    begins = [i * pixels // made for i in range(made)]
    lengths = {-(-(i + 1) * pixels // made) - b for i, b in enumerate(begins)}
    steps = {b - a for a, b in pairwise(begins)} or {1}
    if len(lengths) > 1 or len(steps) > 1:
        return None
    return lengths.pop(), steps.pop()


@operator("upsample_nearest2d upsample_bilinear2d upsample_nearest1d upsample_linear1d")
def _resize(build: Builder, call: Call) -> View:
    dims = 1 if "1d" in call.name else 2
    source, shape = build.image(build.tensor(call), call.node.name, dims), build.shape(call)
    corners = bool(call.get("align_corners"))
    factors = call.get("scale_factors") or [call.get("scales_h"), call.get("scales_w", "scales")][-dims:]
    sizes = [(source.height, 1 if dims == 1 else shape[1]), (source.width, shape[-1])]
    factors = [1.0, *factors][-2:]
    scale = [_scale(n, m, factor, corners) for (n, m), factor in zip(sizes, factors, strict=True)]
    made = build.run(
        Resize,
        call,
        [source],
        (shape[0], sizes[0][1], sizes[1][1]),
        mode="nearest" if "nearest" in call.name else "bilinear",
        align_corners=corners,
        scale=(scale[0], scale[1]),
    )
    return build.view(made, shape)


@operator("_upsample_nearest_exact2d _upsample_nearest_exact1d")
def _nearest_exact(build: Builder, call: Call) -> View:
    dims = 1 if "1d" in call.name else 2
    x, shape = build.planar(build.tensor(call), call.node.name), build.shape(call)
    factors = call.get("scale_factors") or [call.get("scales_h"), call.get("scales_w", "scales")][-dims:]
    for axis, factor in enumerate(factors, 1):
        pixels = x.shape[axis]
        # torch multiplies in float32, and rounding down depends on it.
        scale = np.float32(_scale(pixels, shape[axis], factor, False))
        indices = np.floor((np.arange(shape[axis], dtype=np.float32) + np.float32(0.5)) * scale)
        x = pick(build, call, x, axis, np.minimum(indices.astype(np.int64), pixels - 1))
    return build.reshape(x, shape, call.node.name)


@operator("pixel_shuffle")
def _pixel_shuffle(build: Builder, call: Call) -> View | Turned:
    x, shape, factor = build.tensor(call), build.shape(call), int(call["upscale_factor"])
    *_, height, width = x.shape
    channels = shape[-3]
    parts = build.shaped(x, (*shape[:-3], channels, factor, factor, height, width), call.node.name)
    lead = len(shape) - 3
    order = [*range(lead + 1), lead + 3, lead + 1, lead + 4, lead + 2]
    return build.shaped(turned(parts, order), shape, call.node.name)


@operator("pixel_unshuffle")
def _pixel_unshuffle(build: Builder, call: Call) -> View | Turned:
    x, shape, factor = build.tensor(call), build.shape(call), int(call["downscale_factor"])
    *_, height, width = shape
    parts = build.shaped(x, (*x.shape[:-2], height, factor, width, factor), call.node.name)
    lead = len(shape) - 2
    order = [*range(lead), lead + 1, lead + 3, lead, lead + 2]
    return build.shaped(turned(parts, order), shape, call.node.name)


def _scale(pixels: int, made: int, factor: float | None, corners: bool) -> float:
    """Return pixels read per pixel made, as torch takes it: of a given factor, else of the sizes."""
    if corners:
        return (pixels - 1) / (made - 1) if made > 1 else 0.0
    return 1 / factor if factor else pixels / made


@operator("constant_pad_nd pad")
def _pad(build: Builder, call: Call) -> View:
    x, shape = build.tensor(call), build.shape(call)
    if call.get("mode") not in (None, "constant"):
        return _pad_with_pixels(build, call, x)
    if call.get("value"):
        raise Refusal(f"pads with {call['value']:g}")
    sizes = [int(p) for p in call["pad"]]
    sides = [(0, 0)] * (len(x.shape) + 1)
    for number in range(len(sizes) // 2):
        sides[-1 - number] = (sizes[2 * number], sizes[2 * number + 1])
    if any(sides[0]):
        raise Refusal("pads the batch")
    if len(x.shape) == 3 and x.planes.size == x.shape[0]:  # an image, also where it has one row
        x = View(x.planes.reshape(-1), x.shape[1:])
    lead = x.planes.ndim
    for axis, (before, after) in enumerate(sides[1 : 1 + lead]):
        if before or after:
            x = _pad_planes(build, call, x, axis, before, after)
    inside = sides[1 + lead :]
    if not any(any(s) for s in inside):
        return build.reshape(x, shape, call.node.name)
    x = build.planar(x, call.node.name)
    if x.planes.ndim != lead:
        raise Refusal("pads planes that were made by reshaping")
    above, left = [(0, 0), *inside][-2:]
    return pad(build, call, x, (*above, *left), shape)


@operator("reflection_pad2d reflection_pad1d replication_pad2d replication_pad1d")
def _pad_by_name(build: Builder, call: Call) -> View:
    return _pad_with_pixels(build, call, build.tensor(call))


def _pad_with_pixels(build: Builder, call: Call, x: View) -> View:
    """Return `x` with borders that repeat its own pixels."""
    mode = str(call.get("mode") or call.name)
    sizes = [int(p) for p in call.get("pad", "padding")]
    for number in range(len(sizes) // 2):
        axis = len(x.shape) - 1 - number
        pixels = x.shape[axis]
        places = np.arange(-sizes[2 * number], pixels + sizes[2 * number + 1])
        if "reflect" in mode:
            places = np.abs(places)
            places = np.where(places >= pixels, 2 * (pixels - 1) - places, places)
        elif mode == "circular":
            places = places % pixels
        else:
            places = places.clip(0, pixels - 1)
        x = pick(build, call, x, axis, places)
    return x


def _pad_planes(build: Builder, call: Call, x: View, axis: int, before: int, after: int) -> View:
    """Return `x` with planes of zeros before and behind those of a dimension; negative numbers cut."""
    length = x.planes.shape[axis]
    kept = np.arange(max(0, -before), length - max(0, -after))
    planes = np.take(x.planes, kept, axis)
    if before <= 0 and after <= 0:
        return x.of(planes)
    zero = constant_planes(build, call, x, np.zeros(1)).planes
    parts = []
    for count, part in ((before, None), (0, planes), (after, None)):
        shape = (*planes.shape[:axis], max(0, count), *planes.shape[axis + 1 :])
        parts.append(np.broadcast_to(zero.reshape((1,) * planes.ndim), shape) if part is None else part)
    return x.of(np.concatenate(parts, axis))
