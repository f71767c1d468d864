"""Numbers that the network holds, as planes."""

from __future__ import annotations

import numpy as np

from billhook.compile.ir import Convolution, Linear, Mean
from billhook.compile.lower.base import Builder, Refusal
from billhook.compile.lower.turned import Turned, places
from billhook.compile.lower.view import Doubles, Shape, View
from billhook.compile.planes import Rearrange
from billhook.graph.rules._base import Call

_MOST = 1 << 22  # numbers


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
    if varies(x, values):
        raise Refusal("has a constant that differs from pixel to pixel")
    return np.ascontiguousarray(np.broadcast_to(values, x.shape).reshape(x.planes.size, x.pixels)[:, 0])


def varies(x: View, values: Doubles) -> bool:
    """Return whether what broadcasts to a sample of `x` has different numbers at the pixels of a plane."""
    table = np.broadcast_to(values, x.shape).reshape(x.planes.size, x.pixels)
    return bool((table != table[:, :1]).any())


def constant(build: Builder, call: Call, like: View, values: Doubles, shape: Shape | None = None) -> View:
    """Append planes of any numbers, of the form of `like` if no other shape is given.

    They are the bias of a linear layer without weights, which are then put where they belong.
    """
    shape = like.shape if shape is None else shape
    lead = like.planes.ndim
    flat = np.broadcast_to(values, shape).reshape(-1).astype(np.float32)
    if flat.size > _MOST:
        raise Refusal("has a long constant that differs from pixel to pixel")
    source = build.read(View(like.planes.reshape(-1)[:1], like.spatial), call.node.name)
    if not source.is_vector:
        source = build.run(Mean, call, [source], (1, 1, 1))
    weight = np.zeros((flat.size, 1), np.float32)
    made = build.run(Linear, call, [source], (flat.size, 1, 1), weight=weight, bias=flat)
    if not shape[lead:]:
        return build.view(made, shape)
    wide = (1, 1, *shape[lead:])
    height, width = build.size(like) if shape[lead:] == like.spatial else (wide[-2], wide[-1])
    size = (flat.size // (height * width), height, width)
    found = places(Turned(View(np.arange(flat.size), ()), (0,)), size, (1, 1))
    assert found is not None
    rows, columns = found
    return build.view(build.run(Rearrange, call, [made], size, rows=rows, columns=columns), shape)
