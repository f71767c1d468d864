"""Lowering of sums, products and other operators of two tensors, or of one tensor and constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from billhook.compile.ir import NONE, Activate, Activation, Affine, Binary, Pair, Resize
from billhook.compile.lower.base import Builder, Refusal, operator
from billhook.compile.lower.constants import constant, constant_planes, per_plane, varies
from billhook.compile.lower.turned import Turned, inverse, lying, turned
from billhook.compile.lower.view import Doubles, Shape, View
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
def _arithmetic(build: Builder, call: Call) -> View | Turned:
    given = build.operand(call, "self"), build.operand(call, "other")
    if call.get("rounding_mode") is not None:
        raise Refusal(f"rounds ({call['rounding_mode']})")
    (a, b), order = _in_one_order(build, call, given)
    shape = build.shape(call)
    shape = tuple(shape[d] for d in inverse(order))
    name = "sub" if call.name == "rsub" else call.name
    a, b = (b, a) if call.name == "rsub" else (a, b)
    alpha = call.get("alpha")
    if alpha not in (None, 1):
        b = affine(build, call, b, np.array(alpha), np.zeros(())) if isinstance(b, View) else b * alpha
    function = _FUNCTIONS[name]
    if isinstance(a, View) and isinstance(b, View):
        made = _binary(build, call, function, a, b, shape)
    elif isinstance(a, View):
        assert not isinstance(b, View)
        made = _with_constant(build, call, function, a, b, shape)
    else:
        assert isinstance(b, View)
        made = _constant_first(build, call, function, a, b, shape)
    return turned(made, order)


def _in_one_order(
    build: Builder, call: Call, given: Sequence[Any]
) -> tuple[list[View | Doubles], Sequence[int]]:
    """Return operands, constants as they meet one sample, in the order of the first one that is turned."""
    rank = len(call.shape) - 1
    order = next((x.order for x in given if isinstance(x, Turned)), ())
    fits = all(
        len(x.shape) == rank and isinstance(turned(x, inverse(order)), View)
        for x in given
        if order and isinstance(x, View | Turned)
    )
    order = order if order and fits else tuple(range(rank))
    found: list[View | Doubles] = []
    for x in given:
        if isinstance(x, View | Turned):
            x = turned(x, inverse(order)) if len(x.shape) == rank else x
            found.append(build.plain(x, call.node.name))
        else:
            array = _sample(build, call, x)
            wide = array.reshape((1,) * (rank - array.ndim) + array.shape)
            found.append(wide.transpose(inverse(order)))
    return found, order


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


def _with_constant(
    build: Builder, call: Call, function: Function, x: View, values: Doubles, shape: Shape
) -> View:
    x = broadcast(build, call, x, shape)
    if varies(x, values):
        return _binary(build, call, function, x, constant(build, call, x, values), shape)
    zero, one = np.zeros(()), np.ones(())
    match function:
        case "add":
            return affine(build, call, x, one, values)
        case "subtract":
            return affine(build, call, x, one, -values)
        case "multiply":
            return affine(build, call, x, values, zero)
        case "divide":
            return affine(build, call, x, 1 / values, zero)
    each = per_plane(x, values)
    if (each == each[0]).all():
        bound = float(each[0])
        low, high = (bound, float("inf")) if function == "maximum" else (float("-inf"), bound)
        return activate(build, call, x, Activation("clip", low, high))
    planes = constant_planes(build, call, x, each.reshape(x.planes.shape))
    return _binary(build, call, function, x, planes, shape)


def _constant_first(
    build: Builder, call: Call, function: Function, values: Doubles, x: View, shape: Shape
) -> View:
    if function in _SYMMETRIC:
        return _with_constant(build, call, function, x, values, shape)
    x = broadcast(build, call, x, shape)
    if varies(x, values):
        return _binary(build, call, function, constant(build, call, x, values), x, shape)
    if function == "subtract":
        return affine(build, call, x, -np.ones(()), values)
    planes = constant_planes(build, call, x, per_plane(x, values).reshape(x.planes.shape))
    return _binary(build, call, function, planes, x, shape)


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


def _binary(build: Builder, call: Call, function: Function, a: View, b: View, shape: Shape) -> View:
    if a.shape == b.shape and (a.spatial, build.size(a)) != (b.spatial, build.size(b)):
        a, b = build.planar(a, call.node.name), build.planar(b, call.node.name)
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
def _negative(build: Builder, call: Call) -> View | Turned:
    x, order = lying(build.loose(call))
    return turned(affine(build, call, x, -np.ones(()), np.zeros(())), order)


@operator("reciprocal")
def _reciprocal(build: Builder, call: Call) -> View | Turned:
    x, order = lying(build.loose(call))
    return turned(_constant_first(build, call, "divide", np.ones(()), x, x.shape), order)


@operator("square pow")
def _power(build: Builder, call: Call) -> View | Turned:
    x, order = lying(build.loose(call))
    exponent = 2 if call.name == "square" else build.operand(call, "exponent")
    if exponent not in (1, 2, 3):
        raise Refusal("has an exponent other than 1, 2 or 3")
    made = x
    for _ in range(int(exponent) - 1):
        made = _binary(build, call, "multiply", made, x, x.shape)
    return turned(made, order)


@operator("abs")
def _absolute(build: Builder, call: Call) -> View | Turned:
    x, order = lying(build.loose(call))
    negative = affine(build, call, x, -np.ones(()), np.zeros(()))
    return turned(_binary(build, call, "maximum", x, negative, x.shape), order)


def combine(build: Builder, call: Call, function: Function, a: View, b: View) -> View:
    """Append a ∘ b for tensors of one shape."""
    first, second = build.read(a, call.node.name), build.read(b, call.node.name)
    size = (first.channels, first.height, first.width)
    made = build.run(Binary, call, [first, second], size, function=function, activation=NONE)
    return build.view(made, a.shape)
