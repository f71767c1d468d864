"""Lowering of transposed convolutions: one convolution for all phases of the output, then interleaving.

Output pixel q · stride + phase reads input pixels q + (phase + padding - k · dilation) / stride, for those k
for which that is whole. So every phase is a convolution of stride 1 with some of the weights. All of them are
one convolution with stride² times as many outputs, and zeros at the weights of the other phases.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from billhook.compile.ir import Convolution, Floats, Integers, Pair
from billhook.compile.lower.base import Builder, Refusal, operator
from billhook.compile.lower.parameters import bias_of, floats, pair
from billhook.compile.lower.view import View
from billhook.compile.planes import Rearrange
from billhook.graph.rules._base import Call


@operator("conv_transpose2d conv_transpose1d")
def transposed_convolution(build: Builder, call: Call) -> View:
    """Append a transposed convolution."""
    x, weight = build.tensor(call, "input"), build.constant(call, "weight")
    assert weight is not None
    dims = weight.dim() - 2
    if dims not in (1, 2):
        raise Refusal(f"has {dims} spatial dimensions")
    given = floats(weight if dims == 2 else weight[:, :, None])
    source, shape = build.image(x, call.node.name, dims), build.shape(call)
    stride, dilation = pair(call["stride"], dims), pair(call["dilation"], dims)
    padding, groups = pair(call["padding"], dims, fill=0), int(call["groups"])
    size = (1 if dims == 1 else shape[1], shape[-1])
    axes = [_Axis(size[a], given.shape[2 + a], stride[a], padding[a], dilation[a]) for a in (0, 1)]
    weights = _phased(given, axes, groups)
    height, width = (axis.pixels for axis in axes)
    phases = stride[0] * stride[1]
    bias = bias_of(build, call, shape[0]).reshape(groups, 1, -1)
    made = build.run(
        Convolution,
        call,
        [source],
        (shape[0] * phases, height, width),
        weight=weights,
        bias=np.tile(bias, (1, phases, 1)).reshape(-1),
        padding=(
            -axes[0].first,
            height + axes[0].last - source.height,
            -axes[1].first,
            width + axes[1].last - source.width,
        ),
        groups=groups,
    )
    if phases > 1:
        rows, columns = interleaving(shape[0], groups, size, stride)
        made = build.run(Rearrange, call, [made], (shape[0], *size), rows=rows, columns=columns)
    return build.view(made, shape)


class _Axis:
    """One direction: which weights a phase has.

    Attributes:
        pixels: Of each phase.
        taps: (phase, number of the weight, pixel that it reads).
        first, last: Pixels that are read, at the least from 0 to 0.
    """

    def __init__(self, size: int, kernel: int, stride: int, padding: int, dilation: int) -> None:
        self.pixels = -(-size // stride)
        reads = [
            (a, k, divmod(a + padding - k * dilation, stride))
            for a, k in product(range(stride), range(kernel))
        ]
        self.taps = [(a, k, tap) for a, k, (tap, rest) in reads if not rest]
        self.first = min([0, *(tap for *_, tap in self.taps)])
        self.last = max([0, *(tap for *_, tap in self.taps)])
        self.stride = stride


def _phased(given: Floats, axes: list[_Axis], groups: int) -> Floats:
    """Return weights [groups · phases · outputs, inputs, height, width] of [inputs, outputs, kernel]."""
    inputs, outputs = given.shape[0] // groups, given.shape[1]
    down, across = axes
    made = np.zeros(
        (
            *(groups, down.stride, across.stride, outputs, inputs),
            *(down.last - down.first + 1, across.last - across.first + 1),
        ),
        np.float32,
    )
    own = given.reshape(groups, inputs, outputs, *given.shape[2:]).swapaxes(1, 2)
    for (a, k, row), (b, m, pixel) in product(down.taps, across.taps):
        made[:, a, b, :, :, row - down.first, pixel - across.first] = own[..., k, m]
    return made.reshape(-1, inputs, *made.shape[-2:])


def interleaving(channels: int, groups: int, size: Pair, step: Pair) -> tuple[Integers, Integers]:
    """Return rows and columns of a `Rearrange` of planes [groups, phases down, phases across, channels]."""
    each = channels // groups
    channel, row, pixel = np.arange(channels), np.arange(size[0]), np.arange(size[1])
    first = channel // each * step[0] * step[1] * each + channel % each
    rows = np.zeros((channels, size[0], 3), np.int32)
    rows[..., 0] = first[:, None] + row % step[0] * step[1] * each
    rows[..., 1] = row // step[0]
    columns = np.zeros((size[1], 3), np.int32)
    columns[:, 0], columns[:, 2] = pixel % step[1] * each, pixel // step[1]
    return rows.reshape(-1, 3), columns
