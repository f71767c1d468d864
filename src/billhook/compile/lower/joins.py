"""Lowering of what joins tensors: along channels it costs nothing, along pixels they are moved and added."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from billhook.compile.lower.arithmetic import combine
from billhook.compile.lower.base import Builder, Refusal, operator
from billhook.compile.lower.constants import constant, constant_planes, per_plane, varies
from billhook.compile.lower.turned import Turned, inverse, lying, turned
from billhook.compile.lower.view import Doubles, Shape, View
from billhook.compile.lower.views import pad
from billhook.graph.rules._base import Call


@operator("cat concat concatenate stack")
def _cat(build: Builder, call: Call) -> View | Turned:
    parts = [build.results[n] for n in call.get("tensors")]
    # torch skips empty vectors.
    parts = [p for p in parts if not (isinstance(p, Tensor) and p.dim() == 1 and not p.numel())]
    dim = int(call.get("dim", "axis")) % len(call.shape)
    if dim == 0:
        raise Refusal("works along the batch")
    axis, name = dim - 1, call.node.name
    if call.name == "stack":
        parts = [_stacked(build, p, axis, name) for p in parts]
    views, order = _aligned(build, parts, name)
    first = next(v for v in views if isinstance(v, View))
    axis = order[axis]
    shapes = [v.shape for v in views]
    made = [v if isinstance(v, View) else _constant(build, call, first, v, axis) for v in views]
    if len({(v.planes.ndim, build.size(v)) for v in made if v.planes.size}) > 1:
        made = [build.planar(v, name) for v in made]
    if all(axis < v.planes.ndim and v.planes.ndim == made[0].planes.ndim for v in made):
        return turned(made[0].of(np.concatenate([v.planes for v in made], axis)), order)
    return turned(_side_by_side(build, call, made, axis, sum(s[axis] for s in shapes)), order)


def _stacked(build: Builder, part: View | Turned | Tensor, axis: int, name: str) -> View | Turned | Tensor:
    if isinstance(part, Tensor):
        return part.unsqueeze(axis + 1)
    return build.shaped(part, (*part.shape[:axis], 1, *part.shape[axis:]), name)


def _aligned(
    build: Builder, parts: list[View | Turned | Tensor], name: str
) -> tuple[list[View | Doubles], Shape]:
    """Return all parts in one order, that of the first tensor if pixels can stay, and the order."""
    tensors = [p for p in parts if not isinstance(p, Tensor)]
    order = next((p.order for p in tensors if isinstance(p, Turned)), lying(tensors[0])[1])
    if not all(isinstance(turned(p, inverse(order)), View) for p in tensors):
        order = tuple(range(len(order)))
    found: list[View | Doubles] = []
    for part in parts:
        if isinstance(part, Tensor):
            array: Doubles = part.detach().double().numpy()
            if array.shape[0] != build.batch or (array != array[:1]).any():
                raise Refusal("has a constant that differs from sample to sample")
            found.append(array[0].transpose(inverse(order)))
        else:
            found.append(build.plain(turned(part, inverse(order)), name))
    return found, order


def _constant(build: Builder, call: Call, like: View, array: Doubles, axis: int) -> View:
    """Return a constant that is joined to `like`."""
    lead = array.shape[: like.planes.ndim]
    model = View(np.zeros(lead, np.int64), array.shape[like.planes.ndim :])
    if axis >= like.planes.ndim or varies(model, array):
        return constant(build, call, like, array, array.shape)
    return constant_planes(build, call, like, per_plane(model, array).reshape(lead))


def _side_by_side(build: Builder, call: Call, parts: list[View], axis: int, length: int) -> View:
    """Append the sum of all parts, each with zeros where the others are."""
    parts = [build.planar(p, call.node.name) for p in parts]
    if any(axis < p.planes.ndim for p in parts):
        raise Refusal("joins planes of different sizes")
    vertical = axis == len(parts[0].shape) - 2
    total: View | None = None
    begin = 0
    for part in parts:
        sides = (begin, length - begin - part.shape[axis])
        shape = (*part.shape[:axis], length, *part.shape[axis + 1 :])
        begin += part.shape[axis]
        wide = pad(build, call, part, (*sides, 0, 0) if vertical else (0, 0, *sides), shape)
        total = wide if total is None else combine(build, call, "add", total, wide)
    assert total is not None
    return total
