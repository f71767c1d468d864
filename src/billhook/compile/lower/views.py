"""Lowering of what only moves planes: reshaping, transposing, slicing, joining, repeating."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from billhook.compile.ir import Pad, Pair, Pool, Value
from billhook.compile.lower.arithmetic import constant_planes, per_plane
from billhook.compile.lower.base import Builder, Doubles, Numbers, Refusal, View, operator
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
def _reshape(build: Builder, call: Call) -> View:
    return build.reshape(build.tensor(call), build.shape(call), call.node.name)


@operator("permute transpose swapaxes swapdims movedim moveaxis t numpy_T")
def _permute(build: Builder, call: Call) -> View:
    x = build.tensor(call)
    rank = len(x.shape) + 1
    order = np.arange(rank)
    if call.name == "permute":
        order = np.array([int(d) % rank for d in call["dims"]])
    elif call.name in ("movedim", "moveaxis"):
        order = np.array(_moved(rank, call["source"], call["destination"]))
    else:
        a, b = _two_dims(call, rank)
        order[[a, b]] = order[[b, a]]
    if order[0] != 0:
        raise Refusal("moves the batch")
    lead = x.planes.ndim
    if (order[1 + lead :] != np.arange(1 + lead, rank)).any():
        raise Refusal("moves pixels to other dimensions")
    return x.of(x.planes.transpose(order[1 : 1 + lead] - 1))


def _two_dims(call: Call, rank: int) -> tuple[int, int]:
    if call.name in ("t", "numpy_T"):
        return 0, 1
    a, b = (call.get(*names) for names in (("dim0", "axis0"), ("dim1", "axis1")))
    return int(a) % rank, int(b) % rank


def _moved(rank: int, source: Any, destination: Any) -> list[int]:
    sources, targets = ([d] if isinstance(d, int) else list(d) for d in (source, destination))
    order = [d for d in range(rank) if d not in {s % rank for s in sources}]
    for target, origin in sorted(zip([t % rank for t in targets], sources, strict=True)):
        order.insert(target, origin % rank)
    return order


@operator("channel_shuffle native_channel_shuffle")
def _channel_shuffle(build: Builder, call: Call) -> View:
    x, groups = build.tensor(call), int(call["groups"])
    planes = x.planes.reshape(groups, -1, *x.planes.shape[1:]).swapaxes(0, 1)
    return x.of(planes.reshape(x.planes.shape))


@operator("slice narrow")
def _slice(build: Builder, call: Call) -> View:
    x = build.tensor(call)
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
def _select(build: Builder, call: Call) -> View:
    x = build.tensor(call)
    axis = build.axis(int(call["dim"]), x)
    one = take(build, call, x, axis, np.array([int(call["index"]) % x.shape[axis]]))
    return build.reshape(one, build.shape(call), call.node.name)


@operator("index_select")
def _index_select(build: Builder, call: Call) -> View:
    x, index = build.tensor(call), build.constant(call, "index")
    assert index is not None
    return take(build, call, x, build.axis(int(call["dim"]), x), index.numpy())


@operator("index")
def _index(build: Builder, call: Call) -> View:
    x = build.tensor(call)
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
def _split(build: Builder, call: Call) -> list[View]:
    x = build.tensor(call)
    dim = int(call["dim"])
    axis = build.axis(dim, x)
    made: list[View] = []
    begin = 0
    for number, part in enumerate(call.node.meta["val"]):
        length = 1 if call.name == "unbind" else int(part.shape[dim])
        piece = take(build, call, x, axis, np.arange(begin, begin + length))
        made.append(build.reshape(piece, build.shape(call, number), call.node.name))
        begin += length
    return made


def take(build: Builder, call: Call, x: View, axis: int, indices: Numbers) -> View:
    """Return a tensor with some of the indices of a dimension; the batch does not count as one."""
    if axis < x.planes.ndim:
        return x.of(np.take(x.planes, indices, axis))
    if not indices.size:
        raise Refusal("takes nothing")
    if indices.size == x.shape[axis] and (np.diff(indices) == 1).all():
        return x
    steps = set(np.diff(indices).tolist()) or {1}
    if len(steps) > 1 or min(steps) < 1:
        raise Refusal("takes pixels out of order")
    height, width = build.size(x)
    if x.shape[-2:] != (height, width) and x.spatial != (width,):
        raise Refusal("takes pixels of planes that were made by reshaping")
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


@operator("cat concat concatenate stack")
def _cat(build: Builder, call: Call) -> View:
    nodes = call.get("tensors")
    parts = [build.results[n] for n in nodes]
    first = next(p for p in parts if isinstance(p, View))
    dim = int(call.get("dim", "axis")) % len(call.shape)
    if dim == 0:
        raise Refusal("works along the batch")
    axis = dim - 1
    made: list[View] = []
    for part in parts:
        if isinstance(part, Tensor) and part.dim() == 1 and not part.numel():
            continue  # torch skips these
        view = part if isinstance(part, View) else _as_planes(build, call, first, part, axis)
        if call.name == "stack":
            view = build.reshape(view, (*view.shape[:axis], 1, *view.shape[axis:]), call.node.name)
        made.append(view)
    if any(v.pixels != made[0].pixels for v in made):
        raise Refusal("joins planes of different sizes")
    if any(axis >= v.planes.ndim or v.planes.ndim != made[0].planes.ndim for v in made):
        raise Refusal("joins pixels")
    return made[0].of(np.concatenate([v.planes for v in made], axis))


def _as_planes(build: Builder, call: Call, like: View, constant: Tensor, axis: int) -> View:
    """Return a constant that is joined to `like` as planes."""
    array: Doubles = constant.detach().double().numpy()
    if array.shape[0] != build.batch or (array != array[:1]).any():
        raise Refusal("has a constant that differs from sample to sample")
    shape = array.shape[1:]
    lead = shape[: len(shape) - len(like.spatial)]
    model = View(np.zeros(lead, np.int64), like.spatial)
    return constant_planes(build, call, like, per_plane(model, array[0]).reshape(lead))


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
def _reorder(build: Builder, call: Call) -> View:
    x = build.tensor(call)
    axes = tuple(build.axis(int(d), x) for d in call["dims"])
    if not axes or max(axes) >= x.planes.ndim:
        raise Refusal("moves pixels")
    if call.name == "flip":
        return x.of(np.flip(x.planes, axes))
    return x.of(np.roll(x.planes, [int(s) for s in call["shifts"]], axes))
