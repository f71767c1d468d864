"""Lowering of sums, products and other operators of two tensors, or of one tensor and constants."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from billhook.compile.ir import NONE, Activate, Activation, Affine, Binary, Convolution, Pair, Resize
from billhook.compile.lower.base import Builder, Doubles, Refusal, Shape, View, operator
from billhook.graph.rules._base import Call

Function = Literal["add", "subtract", "multiply", "divide", "maximum", "minimum"]
_SYMMETRIC = ("add", "multiply", "maximum", "minimum")


def activate(build: Builder, call: Call, x: View, activation: Activation) -> View:
    """Append an activation of every number of `x`."""
    if not activation:
        return x
    source = build.read(x, call.node.name)
    size = (source.channels, source.height, source.width)
    made = build.run(Activate, call, [source], size, activation=activation)
    return build.view(made, x.shape)


def affine(build: Builder, call: Call, x: View, scale: Doubles, shift: Doubles) -> View:
    """Append scale · x + shift; both broadcast to a sample of `x` and are the same all over a plane."""
    scales, shifts = per_plane(x, scale), per_plane(x, shift)
    source = build.read(x, call.node.name)
    size = (source.channels, source.height, source.width)
    made = build.run(
        Affine, call, [source], size, scale=scales.astype(np.float32), shift=shifts.astype(np.float32)
    )
    return build.view(made, x.shape)


def constant_planes(build: Builder, call: Call, like: View, values: Doubles) -> View:
    """Append planes of the size of those of `like`, each with one number at all its pixels."""
    source = build.read(View(like.planes.reshape(-1)[:1], like.spatial), call.node.name)
    made = build.run(
        Convolution,
        call,
        [source],
        (values.size, source.height, source.width),
        weight=np.zeros((values.size, 1, 1, 1), np.float32),
        bias=values.reshape(-1).astype(np.float32),
    )
    return build.view(made, (*values.shape, *like.spatial))


def per_plane(x: View, values: Doubles) -> Doubles:
    """Return one number per plane of `x` of what broadcasts to a sample of it."""
    table = np.broadcast_to(values, x.shape).reshape(x.planes.size, x.pixels)
    if (table != table[:, :1]).any():
        raise Refusal("has a constant that differs from pixel to pixel")
    return np.ascontiguousarray(table[:, 0])


def spread(build: Builder, call: Call, x: View, size: Pair, shape: Shape) -> View:
    """Append planes of `size` = height, width from planes of one row, one column or one pixel."""
    height, width = build.size(x)
    source = build.read(x, call.node.name)
    scale = (height / size[0], width / size[1])
    made = build.run(
        Resize,
        call,
        [source],
        (source.channels, *size),
        mode="nearest",
        align_corners=False,
        scale=scale,
    )
    if source.is_vector:
        build.spread[made] = source
    return build.view(made, shape)


@operator("add sub mul div true_divide maximum minimum rsub")
def _arithmetic(build: Builder, call: Call) -> View:
    a, b = build.operand(call, "self"), build.operand(call, "other")
    if call.get("rounding_mode") is not None:
        raise Refusal(f"rounds ({call['rounding_mode']})")
    name = "sub" if call.name == "rsub" else call.name
    a, b = (b, a) if call.name == "rsub" else (a, b)
    alpha = call.get("alpha")
    if alpha not in (None, 1):
        b = affine(build, call, b, np.array(alpha), np.zeros(())) if isinstance(b, View) else b * alpha
    function = _FUNCTIONS[name]
    if isinstance(a, View) and isinstance(b, View):
        return _binary(build, call, function, a, b)
    if isinstance(a, View):
        return _with_constant(build, call, function, a, _sample(build, call, b))
    return _constant_first(build, call, function, _sample(build, call, a), b)


_FUNCTIONS: dict[str, Function] = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "div": "divide",
    "true_divide": "divide",
    "maximum": "maximum",
    "minimum": "minimum",
}


def _sample(build: Builder, call: Call, constant: Any) -> Doubles:
    """Return a constant as it meets one sample."""
    array: Doubles = torch.as_tensor(constant).detach().double().numpy()
    rank = len(call.shape)
    if array.ndim == rank:
        if (array != array[:1]).any():
            raise Refusal("has a constant that differs from sample to sample")
        array = array[0]
    return array


def _with_constant(build: Builder, call: Call, function: Function, x: View, constant: Doubles) -> View:
    x = broadcast(build, call, x, build.shape(call))
    zero, one = np.zeros(()), np.ones(())
    match function:
        case "add":
            return affine(build, call, x, one, constant)
        case "subtract":
            return affine(build, call, x, one, -constant)
        case "multiply":
            return affine(build, call, x, constant, zero)
        case "divide":
            return affine(build, call, x, 1 / constant, zero)
    values = per_plane(x, constant)
    if (values == values[0]).all():
        bound = float(values[0])
        low, high = (bound, float("inf")) if function == "maximum" else (float("-inf"), bound)
        return activate(build, call, x, Activation("clip", low, high))
    planes = constant_planes(build, call, x, values.reshape(x.planes.shape))
    return _binary(build, call, function, x, planes)


def _constant_first(build: Builder, call: Call, function: Function, constant: Doubles, x: View) -> View:
    if function == "subtract":
        x = broadcast(build, call, x, build.shape(call))
        return affine(build, call, x, -np.ones(()), constant)
    if function in _SYMMETRIC:
        return _with_constant(build, call, function, x, constant)
    x = broadcast(build, call, x, build.shape(call))
    planes = constant_planes(build, call, x, per_plane(x, constant).reshape(x.planes.shape))
    return _binary(build, call, function, planes, x)


@operator("expand expand_as broadcast_to")
def _expand(build: Builder, call: Call) -> View:
    return broadcast(build, call, build.tensor(call), build.shape(call))


def broadcast(build: Builder, call: Call, x: View, shape: Shape) -> View:
    """Return `x` with dimensions of one index repeated; rows and columns of images become whole planes."""
    if x.shape == shape:
        return x
    own = (1,) * (len(shape) - len(x.shape)) + x.shape
    grown = own[-2:] != shape[-2:]
    if len(shape) >= 3 and grown and (x.spatial or own[-2:] == (1, 1)):
        x = _spread_to(build, call, build.reshape(x, own, call.node.name), shape[-2:])
        own = x.shape
    elif x.spatial and own[len(own) - len(x.spatial) :] != shape[len(shape) - len(x.spatial) :]:
        raise Refusal("repeats pixels")
    x = build.reshape(x, own, call.node.name)
    return x.of(np.broadcast_to(x.planes, shape[: len(shape) - len(x.spatial)]))


def _spread_to(build: Builder, call: Call, x: View, size: Shape) -> View:
    """Return `x` with its last two dimensions, which are its pixels, grown to `size`."""
    height, width = x.shape[-2:]
    if x.pixels != height * width or build.size(x) != (height, width):
        raise Refusal("repeats pixels of planes that were made by reshaping")
    return spread(build, call, x, (size[0], size[1]), (*x.shape[:-2], *size))


def _binary(build: Builder, call: Call, function: Function, a: View, b: View) -> View:
    shape = build.shape(call)
    if a.pixels < b.pixels and function in _SYMMETRIC:
        a, b = b, a
    inside = len(a.spatial)
    lone = b.pixels == 1 and a.pixels > 1 and a.spatial == shape[len(shape) - inside :]
    if lone:  # one number per plane of a, which need not be spread
        ones = (1,) * max(0, len(shape) - len(b.shape)) + b.shape
        lone = all(size == 1 for size in ones[len(ones) - inside :])
        b = View(b.planes.reshape(ones[: len(ones) - inside]), ()) if lone else b
    a = broadcast(build, call, a, shape)
    lead = a.planes.shape
    if lone:
        planes = b.planes if b.planes.size == 1 else np.broadcast_to(b.planes, lead)
        b = View(planes, ())
    else:
        b = broadcast(build, call, b, shape)
        if b.planes.shape != lead:
            raise Refusal("meets planes of another size")
    first, second = build.read(a, call.node.name), build.read(b, call.node.name)
    if not lone and first in build.spread and function in _SYMMETRIC:
        first, second = second, first
    if second in build.spread and first not in build.spread:
        second, lone = build.spread[second], True
    if not lone and (first.height, first.width) != (second.height, second.width):
        raise Refusal("meets planes of another size")
    made = build.run(
        Binary, call, [first, second], (first.channels, first.height, first.width), function=function
    )
    return build.view(made, shape)


@operator("neg negative")
def _negative(build: Builder, call: Call) -> View:
    return affine(build, call, build.tensor(call), -np.ones(()), np.zeros(()))


@operator("reciprocal")
def _reciprocal(build: Builder, call: Call) -> View:
    return _constant_first(build, call, "divide", np.ones(()), build.tensor(call))


@operator("square")
def _square(build: Builder, call: Call) -> View:
    x = build.tensor(call)
    return _binary(build, call, "multiply", x, x)


@operator("pow")
def _power(build: Builder, call: Call) -> View:
    x, exponent = build.tensor(call), build.operand(call, "exponent")
    if exponent not in (1, 2, 3):
        raise Refusal("has an exponent other than 1, 2 or 3")
    made = x
    for _ in range(int(exponent) - 1):
        made = _binary(build, call, "multiply", made, x)
    return made


@operator("abs")
def _absolute(build: Builder, call: Call) -> View:
    x = build.tensor(call)
    return _binary(build, call, "maximum", x, affine(build, call, x, -np.ones(()), np.zeros(())))


def combine(build: Builder, call: Call, function: Function, a: View, b: View) -> View:
    """Append a ∘ b for tensors of one shape."""
    first, second = build.read(a, call.node.name), build.read(b, call.node.name)
    size = (first.channels, first.height, first.width)
    made = build.run(Binary, call, [first, second], size, function=function, activation=NONE)
    return build.view(made, a.shape)
