"""Lowering of layer norm, group norm and instance norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from billhook.compile.lower.arithmetic import affine, combine
from billhook.compile.lower.base import Builder, Refusal, operator
from billhook.compile.lower.channels import channels_first
from billhook.compile.lower.constants import constant, per_plane, varies
from billhook.compile.lower.turned import Turned, inverse, lying, turned
from billhook.compile.lower.view import Doubles, Shape, View
from billhook.compile.planes import Norm
from billhook.graph.rules._base import Call


@operator("layer_norm native_layer_norm")
def _layer_norm(build: Builder, call: Call) -> Any:
    x = build.loose(call, "input")
    shape = [int(n) for n in call["normalized_shape"]]
    dims = set(range(len(x.shape) - len(shape), len(x.shape)))
    (view, order), over = _as_groups(build, x, dims, call.node.name)
    scale, shift = (
        _parameter(build, call, name, (*[1] * (len(x.shape) - len(shape)), *shape), order, empty)
        for name, empty in (("weight", 1.0), ("bias", 0.0))
    )
    made = turned(_norm(build, call, view, over, float(call["eps"]), scale, shift), order)
    several = isinstance(call.node.meta["val"], (tuple, list))
    return [made, None, None] if several else made


def _parameter(build: Builder, call: Call, name: str, shape: Shape, order: Shape, empty: float) -> Doubles:
    """Return a weight or bias as it meets a sample in another order."""
    given = build.constant(call, name)
    if given is None:
        return np.full((1,) * len(shape), empty)
    array: Doubles = given.detach().double().numpy().reshape(shape)
    return array.transpose(inverse(order))


def _as_groups(
    build: Builder, x: View | Turned, dims: set[int], name: str
) -> tuple[tuple[View, Shape], set[int]]:
    """Return a tensor as a view and its order, and which of its dimensions are normalised together.

    Those are dimensions of planes, or all pixels and dimensions of planes.
    """
    view, order = lying(x)
    over = {order[d] for d in dims}
    pixels = {d for d in range(view.planes.ndim, len(order)) if view.shape[d] > 1}
    if not over & pixels or (over >= pixels and len(dims) > 1):
        return (view, order), over
    if len(dims) > 1:
        raise Refusal("runs over a part of the pixels")
    view, order = channels_first(build, x, dims.pop(), name)
    return (view, order), {view.planes.ndim - 1}


def _norm(
    build: Builder, call: Call, x: View, over: set[int], epsilon: float, scale: Doubles, shift: Doubles
) -> View:
    lead = x.planes.ndim
    front = [d for d in range(lead) if d not in over]
    back = [d for d in range(lead) if d in over]
    pixels = x.pixels > 1 and any(d in over for d in range(lead, len(x.shape)))
    moved = x.of(x.planes.transpose(*front, *back))
    groups = int(np.prod([x.shape[d] for d in front]))
    source = build.read(moved, call.node.name)
    sized = (*front, *back, *range(lead, len(x.shape)))
    even = not varies(x, scale) and not varies(x, shift)
    each = [
        per_plane(moved, np.broadcast_to(v, x.shape).transpose(sized)).astype(np.float32)
        if even
        else np.full(source.channels, empty, np.float32)
        for v, empty in ((scale, 1.0), (shift, 0.0))
    ]
    made = build.run(
        Norm,
        call,
        [source],
        (source.channels, source.height, source.width),
        groups=groups,
        by_pixel=not pixels,
        epsilon=epsilon,
        scale=each[0],
        shift=each[1],
    )
    result = build.view(made, moved.shape)
    result = View(result.planes.reshape(moved.planes.shape), moved.spatial)
    result = result.of(result.planes.transpose(inverse((*front, *back))))
    if even:
        return result
    result = combine(build, call, "multiply", result, constant(build, call, result, scale))
    return combine(build, call, "add", result, constant(build, call, result, shift))


@operator("group_norm native_group_norm")
def _group_norm(build: Builder, call: Call) -> Any:
    x = build.tensor(call, "input")
    groups = int(call.get("num_groups", "group"))
    made = _by_group(build, call, x, groups, build.constant(call, "weight"), build.constant(call, "bias"))
    several = isinstance(call.node.meta["val"], (tuple, list))
    return [made, None, None] if several else made


@operator("instance_norm")
def _instance_norm(build: Builder, call: Call) -> View:
    x, weight, bias = (
        build.tensor(call, "input"),
        build.constant(call, "weight"),
        build.constant(call, "bias"),
    )
    if call["use_input_stats"]:
        return _by_group(build, call, x, x.shape[0], weight, bias)
    mean, variance = build.constant(call, "running_mean"), build.constant(call, "running_var")
    assert mean is not None
    assert variance is not None
    scale = torch.rsqrt(variance.double() + float(call["eps"]))
    scale = scale if weight is None else scale * weight.double()
    shift = -mean.double() * scale + (0 if bias is None else bias.double())
    channels = (-1, *[1] * (len(x.shape) - 1))
    return affine(build, call, x, scale.numpy().reshape(channels), shift.numpy().reshape(channels))


def _by_group(
    build: Builder, call: Call, x: View, groups: int, weight: Tensor | None, bias: Tensor | None
) -> View:
    """Append a norm of groups of the first dimension, each with all that it holds."""
    channels = x.shape[0]
    name = call.node.name
    if not x.planes.ndim:
        raise Refusal("has channels that lie inside planes")
    apart = View(x.planes.reshape(groups, -1, *x.planes.shape[1:]), x.spatial)
    scale, shift = (
        np.broadcast_to(np.full(1, empty) if p is None else p.detach().double().numpy(), (channels,)).reshape(
            groups, -1, *[1] * (len(x.shape) - 1)
        )
        for p, empty in ((weight, 1.0), (bias, 0.0))
    )
    over = set(range(1, len(apart.shape)))
    epsilon = float(call.get("eps", "epsilon"))
    made = _norm(build, call, apart, over, epsilon, scale, shift)
    return build.reshape(made, x.shape, name)
