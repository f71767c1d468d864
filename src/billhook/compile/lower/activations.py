"""Lowering of functions of single numbers, and of softmax."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from billhook.compile.ir import RELU, Activation, Softmax
from billhook.compile.lower.arithmetic import activate, affine, combine
from billhook.compile.lower.base import Builder, Refusal, operator
from billhook.compile.lower.channels import channels_first
from billhook.compile.lower.constants import per_plane
from billhook.compile.lower.turned import Turned, inverse, lying, turned
from billhook.compile.lower.view import Numbers, View
from billhook.graph.rules._base import Call

_INFINITY = float("inf")

_ACTIVATIONS: dict[str, Callable[[Call], Activation]] = {
    "relu": lambda call: RELU,
    "relu6": lambda call: Activation("clip", 0.0, 6.0),
    "hardtanh": lambda call: Activation("clip", float(call["min_val"]), float(call["max_val"])),
    "clamp": lambda call: _clip(call, "min", "max"),
    "clip": lambda call: _clip(call, "min", "max"),
    "clamp_min": lambda call: _clip(call, "min", None),
    "clamp_max": lambda call: _clip(call, None, "max"),
    "leaky_relu": lambda call: Activation("leaky", float(call["negative_slope"])),
    "sigmoid": lambda call: Activation("sigmoid"),
    "silu": lambda call: Activation("silu"),
    "hardsigmoid": lambda call: Activation("hardsigmoid"),
    "hardswish": lambda call: Activation("hardswish"),
    "tanh": lambda call: Activation("tanh"),
    "gelu": lambda call: Activation("gelu" if call["approximate"] == "none" else "gelu_tanh"),
}


def _clip(call: Call, low: str | None, high: str | None) -> Activation:
    bounds = [call.get(name) if name else None for name in (low, high)]
    if not all(b is None or isinstance(b, (int, float)) for b in bounds):
        raise Refusal("has bounds that are tensors")
    return Activation(
        "clip",
        -_INFINITY if bounds[0] is None else float(bounds[0]),
        _INFINITY if bounds[1] is None else float(bounds[1]),
    )


@operator(*_ACTIVATIONS)
def _activation(build: Builder, call: Call) -> View | Turned:
    x, order = lying(build.loose(call))
    return turned(activate(build, call, x, _ACTIVATIONS[call.name](call)), order)


@operator("prelu _prelu_kernel")
def _prelu(build: Builder, call: Call) -> View | Turned:
    (x, order), weight = lying(build.loose(call, "self")), build.constant(call, "weight")
    assert weight is not None
    slopes = weight.detach().double().numpy().reshape(-1)
    if slopes.size == 1:
        return turned(activate(build, call, x, Activation("leaky", float(slopes[0]))), order)
    slopes = slopes.reshape(-1, *[1] * (len(x.shape) - 1)).transpose(inverse(order))
    slopes = per_plane(x, slopes).reshape(*x.planes.shape, *[1] * len(x.spatial))
    below = activate(build, call, x, Activation("clip", -_INFINITY, 0.0))
    below = affine(build, call, below, slopes, np.zeros(()))
    return turned(combine(build, call, "add", activate(build, call, x, RELU), below), order)


@operator("softmax _softmax")
def _softmax(build: Builder, call: Call) -> View | Turned:
    x = build.loose(call)
    return softmax(build, call, x, build.axis(int(call["dim"]), x))


def softmax(build: Builder, call: Call, given: View | Turned, dim: int) -> View | Turned:
    """Append a softmax over a dimension of a sample."""
    x, order = lying(given)
    if order[dim] >= x.planes.ndim:
        x, order = channels_first(build, given, dim, call.node.name)
    axis = order[dim]
    moved = np.moveaxis(x.planes, axis, -1)
    groups = moved.reshape(-1, moved.shape[-1])
    if len(groups) > 1 and groups.shape[1] == 2:
        return turned(x.of(np.moveaxis(_of_pairs(build, call, x, moved), -1, axis)), order)
    source = build.read(View(groups, x.spatial), call.node.name)
    size = (source.channels, source.height, source.width)
    value = build.run(Softmax, call, [source], size, groups=len(groups))
    planes = build.view(value, (groups.size, *x.spatial)).planes.reshape(moved.shape)
    return turned(x.of(np.moveaxis(planes, -1, axis)), order)


def _of_pairs(build: Builder, call: Call, x: View, pairs: Numbers) -> Numbers:
    """Return planes of the softmax of two numbers each: the sigmoid of their difference."""
    made = []
    for one, other in ((0, 1), (1, 0)):
        a, b = x.of(pairs[..., one]), x.of(pairs[..., other])
        difference = combine(build, call, "subtract", a, b)
        made.append(activate(build, call, difference, Activation("sigmoid")).planes)
    return np.stack(made, -1)
