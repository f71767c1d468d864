"""Pass: scales and activations come before pixels are rearranged, where operators can take them over."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from billhook.compile.ir import Activate, Affine, Floats, Network, Op, Value
from billhook.compile.planes import Rearrange


def before_rearranging(network: Network) -> Network:
    """Return the network in which `Rearrange` comes after the `Affine` and `Activate` that read only it."""
    uses = network.uses
    at: dict[Value, int] = {}
    ops: list[Op] = []
    for op in network:
        place = at.get(op.inputs[0])
        moved = ops[place] if place is not None else None
        if (
            place is not None
            and isinstance(moved, Rearrange)
            and not moved.activation
            and uses[moved.output] == 1
            and (earlier := _before(op, moved)) is not None
        ):
            del at[moved.output]
            ops[place : place + 1] = [earlier, replace(moved, inputs=(earlier.output,), output=op.output)]
            at = {v: i + (i > place) for v, i in at.items()} | {op.output: place + 1}
        else:
            at[op.output] = len(ops)
            ops.append(op)
    return network.with_ops(ops)


def _before(op: Op, moved: Rearrange) -> Op | None:
    """Return what makes of the input of `moved` what `op` makes of its output; None if nothing does."""
    x = moved.inputs[0]
    made = Value(f"{op.output.name}.before", x.channels, x.height, x.width)
    if isinstance(op, Activate):
        return replace(op, inputs=(x,), output=made)
    if not isinstance(op, Affine):
        return None
    scale, shift = (_of_planes(values, moved) for values in (op.scale, op.shift))
    if scale is None or shift is None:
        return None
    return replace(op, inputs=(x,), output=made, scale=scale, shift=shift)


def _of_planes(values: Floats, moved: Rearrange) -> Floats | None:
    """Return numbers of the planes that are read; None if pixels of one have different ones."""
    more = np.unique(moved.columns[:, 0])
    planes = moved.rows[:, :1] + more
    each = np.broadcast_to(np.repeat(values, moved.output.height)[:, None], planes.shape)
    found = np.zeros(moved.inputs[0].channels, np.float32)
    found[planes] = each
    return found if (found[planes] == each).all() else None
