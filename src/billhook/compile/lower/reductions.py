"""Lowering of means, sums and largest numbers over dimensions."""

from __future__ import annotations

from typing import Literal

import numpy as np

from billhook.compile.ir import Convolution, Mean, Pool
from billhook.compile.lower.arithmetic import affine, combine
from billhook.compile.lower.base import Builder, Refusal, operator
from billhook.compile.lower.turned import Turned, lying, turned
from billhook.compile.lower.view import View
from billhook.graph.rules._base import Call

Mode = Literal["max", "average"]


@operator("mean sum amax amin")
def _reduce(build: Builder, call: Call) -> View | Turned:
    tensor, shape = build.loose(call), build.shape(call)
    x, order = lying(tensor)
    given = call.get("dim")
    if given is None or given == []:
        raise Refusal("mixes samples")
    axes = sorted({order[build.axis(int(d), tensor)] for d in ([given] if isinstance(given, int) else given)})
    largest = call.name in ("amax", "amin")
    if call.name == "amin":
        raise Refusal("takes the smallest number")
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    inside = [a for a in axes if a >= x.planes.ndim]
    lead = [a for a in axes if a < x.planes.ndim and x.shape[a] > 1]
    if inside:
        x = _over_pixels(build, call, x, inside, "max" if largest else "average")
    if lead:
        x = _largest_plane(build, call, x, lead) if largest else _mean_plane(build, call, x, lead)
    if call.name == "sum":
        x = affine(build, call, x, np.array(float(count)), np.zeros(()))
    return build.shaped(turned(x, order), shape, call.node.name)


@operator("max")
def _max_of_dim(build: Builder, call: Call) -> list[View | Turned | None]:
    tensor = build.loose(call)
    if "dim" not in call.args:
        raise Refusal("mixes samples")
    x, order = lying(tensor)
    axis = order[build.axis(int(call["dim"]), tensor)]
    if axis >= x.planes.ndim:
        x = _over_pixels(build, call, x, [axis], "max")
    else:
        x = _largest_plane(build, call, x, [axis])
    return [build.shaped(turned(x, order), build.shape(call, 0), call.node.name), None]


def _over_pixels(build: Builder, call: Call, x: View, axes: list[int], mode: Mode) -> View:
    """Return `x` with one index left of some dimensions that lie inside planes."""
    height, width = build.size(x)
    kept = [1 if a in axes else n for a, n in enumerate(x.shape)]
    if all(kept[a] == 1 for a in range(x.planes.ndim, len(x.shape))):
        source = build.read(x, call.node.name)
        size = (source.channels, 1, 1)
        if mode == "average":
            made = build.run(Mean, call, [source], size)
        else:
            made = build.run(
                Pool, call, [source], size, mode=mode, kernel=(height, width), stride=(height, width)
            )
        return build.view(made, tuple(kept))
    if x.spatial != (height, width):
        raise Refusal("runs over a part of the pixels of planes that were made by reshaping")
    rows = len(x.shape) - 2
    kernel = (height if rows in axes else 1, width if rows + 1 in axes else 1)
    source = build.read(x, call.node.name)
    size = (source.channels, height // kernel[0], width // kernel[1])
    made = build.run(Pool, call, [source], size, mode=mode, kernel=kernel, stride=kernel)
    return build.view(made, tuple(kept))


def _mean_plane(build: Builder, call: Call, x: View, axes: list[int]) -> View:
    moved = np.moveaxis(x.planes, axes, range(-len(axes), 0))
    rest = moved.shape[: moved.ndim - len(axes)]
    count = int(np.prod(moved.shape[len(rest) :]))
    source = build.read(View(moved, x.spatial), call.node.name)
    groups = source.channels // count
    weight = np.full((groups, count, 1, 1), 1 / count, np.float32)
    size = (groups, source.height, source.width)
    made = build.run(
        Convolution, call, [source], size, weight=weight, bias=np.zeros(groups, np.float32), groups=groups
    )
    kept = tuple(1 if a in axes else n for a, n in enumerate(x.planes.shape))
    return build.view(made, (*kept, *x.spatial))


def _largest_plane(build: Builder, call: Call, x: View, axes: list[int]) -> View:
    moved = np.moveaxis(x.planes, axes, range(len(axes)))
    rest = moved.shape[len(axes) :]
    left = moved.reshape(-1, *rest)
    while len(left) > 1:
        half = len(left) // 2
        made = combine(build, call, "maximum", x.of(left[:half]), x.of(left[half : 2 * half]))
        left = np.concatenate([made.planes.reshape(half, *rest), left[2 * half :]])
    kept = tuple(1 if a in axes else n for a, n in enumerate(x.planes.shape))
    return x.of(left.reshape(kept))
