"""Convolutions in the form the engine runs: a matrix times shifted planes, with stride 1.

A strided window reads every s-th row: as s phases of the rows, each of which it reads with stride 1. A
convolution that makes one pixel is a linear layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import product

import numpy as np

from billhook.compile.ir import (
    NONE,
    QUAD,
    Binary,
    Convolution,
    Floats,
    Integers,
    Linear,
    Network,
    Op,
    Pad,
    Pair,
    Value,
)
from billhook.compile.products import Depthwise, Phases, Product


def as_products(network: Network) -> Network:
    """Return the network with `Product`, `Phases` and `Linear` in the place of convolutions."""
    ops: list[Op] = []
    split: dict[tuple[Value, Pair, tuple[Pair, ...]], Value] = {}
    for op in network:
        if not isinstance(op, Convolution):
            ops.append(op)
        elif op.output.is_vector:
            ops += _linear(op)
        elif _is_depthwise(op):
            ops.append(_depthwise(op))
        else:
            ops += _product(op, split)
    return network.with_ops(ops)


def _is_depthwise(op: Convolution) -> bool:
    """Return True for windows that the engine reads where they lie, without shifted or strided copies."""
    height, width = op.weight.shape[2:]
    return (
        op.groups == op.weight.shape[0] == op.inputs[0].channels
        and height == width
        and height in (3, 5)
        and op.stride in ((1, 1), (2, 2))
        and op.dilation == (1, 1)
        and all(p < height for p in op.padding)
        and len(op.inputs) == 1
        and not op.inputs[0].is_vector
        and not op.inputs[0].quantised
    )


def _depthwise(op: Convolution) -> Depthwise:
    top, _, left, _ = op.padding
    return Depthwise(
        op.inputs, op.output, op.weight[:, 0], op.bias, op.stride[0], top, left, activation=op.activation
    )


def taps(op: Convolution) -> tuple[tuple[Pair, ...], Integers]:
    """Return the phases that a convolution reads, and its taps [groups, k, 3] in them; k as in its weight."""
    inputs, *kernel = op.weight.shape[1:]
    rows, columns = (
        [divmod(k * op.dilation[axis] - op.padding[2 * axis], op.stride[axis]) for k in range(kernel[axis])]
        for axis in (0, 1)
    )
    phases = tuple(sorted({(r[1], c[1]) for r, c in product(rows, columns)}))
    number = {phase: i for i, phase in enumerate(phases)}
    channels = _stored(op.inputs[0])
    of_kernel = [(number[r[1], c[1]] * channels, r[0], c[0]) for r, c in product(rows, columns)]
    planes = np.arange(op.groups * inputs).reshape(op.groups, inputs, 1, 1)
    made = np.zeros((op.groups, inputs, len(of_kernel), 3), np.int32)
    made[:] = np.asarray(of_kernel, np.int32)
    made[..., 0] += planes[..., 0]
    return phases, made.reshape(op.groups, -1, 3)


def _product(op: Convolution, split: dict[tuple[Value, Pair, tuple[Pair, ...]], Value]) -> Iterable[Op]:
    x, *added = op.inputs
    one_phase = op.stride != (1, 1) and x.height <= op.stride[0] and x.width <= op.stride[1]
    if x.is_vector or one_phase:
        # Single pixels have no zeros around them, so their padding is written out.
        top, bottom, left, right = op.padding
        wide = Value(
            f"{op.output.name}.padded",
            x.channels,
            x.height + top + bottom,
            x.width + left + right,
            x.quantised,
        )
        yield Pad((x,), wide, op.padding)
        op = replace(op, inputs=(wide, *added), padding=(0, 0, 0, 0))
        x = wide
    phases, made = taps(op)
    if op.stride != (1, 1):
        key = (x, op.stride, phases)
        if key not in split:
            height, width = (
                -(-size // step) for size, step in zip((x.height, x.width), op.stride, strict=True)
            )
            name, channels = f"{x.name}.phases{len(split)}", _stored(x) * len(phases)
            split[key] = Value(name, channels, height, width, x.quantised)
            yield Phases((x,), split[key], op.stride, phases)
        x = split[key]
    weight = op.weight.reshape(op.groups, op.weight.shape[0] // op.groups, -1)
    yield Product((x, *added), op.output, weight, made, op.bias, op.weight_scale, activation=op.activation)


def _stored(x: Value) -> int:
    """Return the channels of x, or of all its quads."""
    return QUAD * x.planes if x.quantised else x.channels


def _linear(op: Convolution) -> Iterable[Op]:
    """Yield a convolution that makes one pixel as a matrix over all pixels of x."""
    x, *added = op.inputs
    outputs, inputs, height, width = op.weight.shape
    dense: Floats = np.zeros((outputs, x.channels, x.height, x.width), np.float32)
    per_group = outputs // op.groups
    for i, j in product(range(height), range(width)):
        row, column = i * op.dilation[0] - op.padding[0], j * op.dilation[1] - op.padding[2]
        if not (0 <= row < x.height and 0 <= column < x.width):
            continue
        for g in range(op.groups):
            own, read = slice(g * per_group, (g + 1) * per_group), slice(g * inputs, (g + 1) * inputs)
            dense[own, read, row, column] = op.weight[own, :, i, j]
    made = op.output if not added else Value(f"{op.output.name}.sum", outputs)
    weight = dense.reshape(outputs, -1)
    activation = NONE if added else op.activation
    yield Linear((x,), made, weight, op.bias, op.groups, op.weight_scale, activation=activation)
    if added:
        yield Binary((made, *added), op.output, "add", activation=op.activation)
