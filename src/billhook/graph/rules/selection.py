"""Layers that pick channels: a buffer says which, and is cut like a weight."""

from __future__ import annotations

from billhook.graph.labels import Dims
from billhook.graph.rules._base import Call, Flow, rule


@rule("billhook::select_channels")
def select_channels(flow: Flow, call: Call) -> Dims:
    """index [n] of a module's own makes channels that can leave; those it picks from must keep their numbers.

    The index of an `index_select` in anybody's forward is data; that of `billhook.fuse.ChannelSelection` is
    its own, so an entry that leaves takes only the picking with it. It multiplies nothing.
    """
    x, index = call["x"], call["index"]
    dims = flow.dims(x)
    flow.freeze(call, dims[1], "channels are picked by a selection layer")
    dims[1] = flow.dims(index)[0]
    flow.role(index, 0, "out")
    return dims


@rule("billhook::copy_channels")
def copy_channels(flow: Flow, call: Call) -> Dims:
    """index [n] makes channels of its own, each a copy of one that it reads, or of none (-1).

    A channel that leaves on either side leaves alone: its number becomes -1 in the index of who copied it
    (see `Flow.numbering`), like a zero in the weights of a convolution. It multiplies nothing.
    """
    x, index, gate, magnitude = call["x"], call["index"], call["gate"], call["magnitude"]
    dims = flow.dims(x)
    name = flow.tensor_name(index)
    if name is None or name in flow.numbering:
        flow.freeze(call, dims[1], "channels are copied by an index that is not its layer's own")
        dims[1] = None
        return dims
    if dims[1] is not None:
        flow.numbering[name] = dims[1]
        flow.contract(call, x, 1)
    if gate is not None:
        flow.unify(call, dims[1], flow.dims(gate)[0])
        flow.role(gate, 0, "in")
    dims[1] = flow.dims(index)[0]
    flow.role(index, 0, "out")
    if magnitude is not None:
        flow.unify(call, dims[1], flow.dims(magnitude)[0])
        flow.role(magnitude, 0, "out")
    return dims
