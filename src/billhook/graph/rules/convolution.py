"""Convolutions of any rank: plain, transposed, grouped, depthwise."""

from __future__ import annotations

from math import prod

import numpy as np

from billhook.graph.labels import Dims, Labels
from billhook.graph.rules._base import Call, Flow, rule, shape_of


@rule("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution")
def convolution(flow: Flow, call: Call) -> Dims:
    """Weight axis 0 produces and axis 1 consumes channels (the other way round if transposed).

    Groups: with few channels per group (depthwise, ResNeXt) a whole group is the unit that leaves, input and
    output together; with few groups the same position leaves in every group. So the unit stays small.
    """
    x, weight = call.get("input", "self"), call["weight"]
    groups = int(call["groups"])
    transposed = call.name.startswith("conv_transpose") or bool(call.get("transposed"))
    spatial = len(shape_of(weight)) - 2
    dims, axes = flow.dims(x), flow.dims(weight)
    channel = len(dims) - spatial - 1
    bias = flow.dims(call["bias"])[0] if call["bias"] is not None else None
    for labels in (*axes[2:], *(d for i, d in enumerate(dims) if i > channel)):
        flow.freeze(call, labels, "slides over this dimension")
    kernel = prod(shape_of(weight)[2:])
    batch = prod(shape_of(x)[:channel])
    pixels = prod((shape_of(x) if transposed else call.shape)[channel + 1 :])
    flow.macs(
        call, batch * pixels * kernel * (1 if axes[0] is not None else shape_of(weight)[0]), axes[0], axes[1]
    )
    if groups == 1:
        source, out = (axes[0], axes[1]) if transposed else (axes[1], axes[0])
        flow.unify(call, dims[channel], source)
        flow.role(weight, 0, "in" if transposed else "out")
        flow.role(weight, 1, "out" if transposed else "in")
        flow.contract(call, x, channel)
    else:
        out = _grouped(flow, call, dims[channel], axes[0], axes[1], groups, transposed)
        if not whole_groups(call):
            flow.contract(call, x, channel)
    if call["bias"] is not None:
        flow.unify(call, bias, out)
        flow.role(call["bias"], 0, "out")
    return [*dims[:channel], out, *[None] * spatial]


def _grouped(
    flow: Flow,
    call: Call,
    x: Labels | None,
    first: Labels | None,
    second: Labels | None,
    groups: int,
    transposed: bool,
) -> Labels | None:
    """Tie the channels of a grouped convolution; return the labels of its output."""
    weight = call["weight"]
    if x is None or first is None or second is None:
        for labels in (x, first, second):
            flow.freeze(call, labels, "grouped convolution over an input without channels")
        flow.role(weight, 0, "out")
        return first if not transposed else None
    per_group = first.reshape(groups, -1)  # [groups, channels of weight axis 0 in a group]
    inputs = x.reshape(groups, -1)
    if whole_groups(call):
        flow.unify(call, inputs[:, :1], inputs)
        flow.unify(call, per_group[:, :1], per_group)
        flow.unify(call, inputs[:, 0], per_group[:, 0])
        flow.freeze(call, second, "channels inside a group stay; whole groups leave")
        flow.role(weight, 0, "through")
        # The labels that came in, so that a later split finds again what was merged before.
        return inputs[:, 0].repeat(len(second) if transposed else per_group.shape[1])
    if transposed:  # weight [in, out / groups, ...]
        flow.unify(call, inputs, per_group)
        flow.unify(call, per_group[:1], per_group)
        flow.role(weight, 0, "in")
        flow.role(weight, 1, "out")
        return np.tile(second, groups)
    flow.unify(call, second[None], inputs)
    flow.unify(call, per_group[:1], per_group)
    flow.role(weight, 0, "out")
    flow.role(weight, 1, "in")
    return first


def whole_groups(call: Call) -> bool:
    """Return True if a unit of a grouped convolution is a group, False if it is a position in all."""
    groups, shape = int(call["groups"]), shape_of(call["weight"])
    return groups > min(shape[0] // groups, shape[1])
