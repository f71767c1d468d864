"""Lowering of what only moves planes: reshaping, transposing, slicing, joining, repeating."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from billhook.compile.ir import Pad, Pair, Pool, Value
from billhook.compile.lower.base import Builder, Refusal, operator
from billhook.compile.lower.turned import Turned, lying, turned
from billhook.compile.lower.view import Numbers, View
from billhook.compile.planes import Rearrange
from billhook.graph.rules._base import Call


@operator(
    "dropout feature_dropout alpha_dropout feature_alpha_dropout native_dropout",
    "contiguous clone detach alias lift_fresh lift_fresh_copy identity positive",
)
def _same(build: Builder, call: Call) -> Any:
    if call.get("train"):
        raise Refusal("drops numbers at random")
    x = build.operand(call, "self", "input", "a")
    return [x, None] if isinstance(call.node.meta["val"], (tuple, list)) else x


@operator("to _to_copy type_as float double half")
def _cast(build: Builder, call: Call) -> Any:
    kind = call.node.meta["val"].dtype
    if not kind.is_floating_point:
        raise Refusal(f"casts to {str(kind).removeprefix('torch.')}")
    return build.operand(call, "self", "input")


@operator("view reshape flatten unflatten squeeze unsqueeze _unsafe_view view_as reshape_as _reshape_alias")
def _reshape(build: Builder, call: Call) -> View | Turned:
    return build.shaped(build.loose(call), build.shape(call), call.node.name)


@operator("channel_shuffle native_channel_shuffle")
def _channel_shuffle(build: Builder, call: Call) -> View:
    x, groups = build.tensor(call), int(call["groups"])
    planes = x.planes.reshape(groups, -1, *x.planes.shape[1:]).swapaxes(0, 1)
    return x.of(planes.reshape(x.planes.shape))


@operator("slice narrow")
def _slice(build: Builder, call: Call) -> View | Turned:
    x = build.loose(call)
    dim = int(call["dim"])
    if call.name == "slice" and dim % (len(x.shape) + 1) == 0 and build.shape(call) == x.shape:
        return x  # x[:]
    axis = build.axis(dim, x)
    if call.name == "narrow":
        start = int(call["start"])
        span = range(start, start + int(call["length"]))
    else:
        span = range(*slice(call["start"], call["end"], call["step"]).indices(x.shape[axis]))
    return take(build, call, x, axis, np.array(span, dtype=np.int64))


@operator("select")
def _select(build: Builder, call: Call) -> View | Turned:
    x = build.loose(call)
    axis = build.axis(int(call["dim"]), x)
    one = take(build, call, x, axis, np.array([int(call["index"]) % x.shape[axis]]))
    return build.shaped(one, build.shape(call), call.node.name)


@operator("index_select")
def _index_select(build: Builder, call: Call) -> View | Turned:
    x, index = build.loose(call), build.constant(call, "index")
    assert index is not None
    return take(build, call, x, build.axis(int(call["dim"]), x), index.numpy())


@operator("index")
def _index(build: Builder, call: Call) -> View | Turned:
    x = build.loose(call)
    indices = [build.results[i] if isinstance(i, fx.Node) else i for i in call["indices"]]
    used = [(dim, i) for dim, i in enumerate(indices) if i is not None]
    if len(used) != 1 or not isinstance(used[0][1], Tensor) or used[0][1].dim() != 1:
        raise Refusal("has more than one index, or one that is computed")
    ((dim, index),) = used
    if index.dtype in (torch.bool, torch.uint8):
        index = index.nonzero()[:, 0]
    axis = build.axis(dim, x)
    return take(build, call, x, axis, index.numpy().astype(np.int64) % x.shape[axis])


@operator("chunk split split_with_sizes unsafe_split unsafe_chunk tensor_split unbind")
def _split(build: Builder, call: Call) -> list[View | Turned]:
    x = build.loose(call)
    dim = int(call["dim"])
    axis = build.axis(dim, x)
    made: list[View | Turned] = []
    begin = 0
    for number, part in enumerate(call.node.meta["val"]):
        length = 1 if call.name == "unbind" else int(part.shape[dim])
        piece = take(build, call, x, axis, np.arange(begin, begin + length))
        made.append(build.shaped(piece, build.shape(call, number), call.node.name))
        begin += length
    return made


def take(build: Builder, call: Call, x: View | Turned, axis: int, indices: Numbers) -> View | Turned:
    """Return a tensor with some of the indices of a dimension; the batch does not count as one."""
    view, order = lying(x)
    return turned(_taken(build, call, view, order[axis], indices), order)


def _taken(build: Builder, call: Call, x: View, axis: int, indices: Numbers) -> View:
    if axis < x.planes.ndim:
        return x.of(np.take(x.planes, indices, axis))
    if not indices.size:
        raise Refusal("takes nothing")
    if indices.size == x.shape[axis] and (np.diff(indices) == 1).all():
        return x
    x = build.planar(x, call.node.name)
    if axis < x.planes.ndim:
        return x.of(np.take(x.planes, indices, axis))
    steps = set(np.diff(indices).tolist()) or {1}
    if len(steps) > 1 or min(steps) < 1:
        return pick(build, call, x, axis, indices)
    first, last, step = int(indices[0]), int(indices[-1]), int(steps.pop())
    if (x.shape[axis] - 1 - first) // step + 1 == indices.size:
        last = x.shape[axis] - 1  # what is behind the last index is stepped over
    vertical = axis == len(x.shape) - 2
    cut = (-first, last + 1 - x.shape[axis])
    shape = (*x.shape[:axis], last + 1 - first, *x.shape[axis + 1 :])
    x = pad(build, call, x, (*cut, 0, 0) if vertical else (0, 0, *cut), shape)
    if step == 1:
        return x
    shape = (*shape[:axis], indices.size, *shape[axis + 1 :])
    return build.view(_every(build, call, x, (step, 1) if vertical else (1, step)), shape)


def pick(build: Builder, call: Call, x: View, axis: int, indices: Numbers) -> View:
    """Append any choice of rows or pixels."""
    x = build.planar(x, call.node.name)
    if axis < x.planes.ndim:
        return x.of(np.take(x.planes, indices, axis))
    source = build.read(x, call.node.name)
    vertical = axis == len(x.shape) - 2
    down, right = np.arange(source.height), np.arange(source.width)
    down, right = (indices, right) if vertical else (down, indices)
    rows = np.zeros((source.channels, down.size, 3), np.int32)
    rows[..., 0], rows[..., 1] = np.arange(source.channels)[:, None], down
    columns = np.zeros((right.size, 3), np.int32)
    columns[:, 2] = right
    size = (source.channels, down.size, right.size)
    made = build.run(Rearrange, call, [source], size, rows=rows.reshape(-1, 3), columns=columns)
    return build.view(made, (*x.shape[:axis], indices.size, *x.shape[axis + 1 :]))


def _every(build: Builder, call: Call, x: View, stride: Pair) -> Value:
    """Append the choice of every so many rows and pixels; joins one of rows and one of pixels."""
    source = build.read(x, call.node.name)
    size = (source.channels, -(-source.height // stride[0]), -(-source.width // stride[1]))
    before = build.ops[-1] if build.ops else None
    if isinstance(before, Pool) and before.output is source and before.kernel == (1, 1):
        source = before.inputs[0]
        stride = (stride[0] * before.stride[0], stride[1] * before.stride[1])
    return build.run(Pool, call, [source], size, mode="max", kernel=(1, 1), stride=stride)


def pad(
    build: Builder, call: Call, x: View, padding: tuple[int, int, int, int], shape: Sequence[int]
) -> View:
    """Append zeros around planes, or the cutting of planes; `shape` is what comes out."""
    if not any(padding):
        return x
    source = build.read(x, call.node.name)
    above, below, left, right = padding
    size = (source.height + above + below, source.width + left + right)
    made = build.run(Pad, call, [source], (source.channels, *size), padding=padding)
    return build.view(made, tuple(shape))


@operator("repeat tile")
def _repeat(build: Builder, call: Call) -> View:
    x = build.tensor(call)
    repeats = [int(r) for r in call.get("repeats", "dims")]
    rank = len(x.shape) + 1
    if len(repeats) < rank:
        repeats = [1] * (rank - len(repeats)) + repeats
    shape = build.shape(call)
    if repeats[0] != 1 or len(repeats) != rank:
        raise Refusal("repeats samples")
    lead = x.planes.ndim
    if any(r != 1 for r in repeats[1 + lead :]):
        raise Refusal("repeats pixels")
    made = x.of(np.tile(x.planes, repeats[1 : 1 + lead]))
    assert prod(made.shape) == prod(shape)
    return made


@operator("flip roll")
def _reorder(build: Builder, call: Call) -> View | Turned:
    x = build.loose(call)
    if not call["dims"]:
        raise Refusal("moves numbers of all dimensions")
    for number, dim in enumerate(call["dims"]):
        axis = build.axis(int(dim), x)
        indices = np.arange(x.shape[axis])
        indices = indices[::-1] if call.name == "flip" else np.roll(indices, int(call["shifts"][number]))
        x = take(build, call, x, axis, indices)
    return x
