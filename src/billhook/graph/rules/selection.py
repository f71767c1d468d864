"""Selection layers: a buffer says which channels are picked, and is cut like a weight."""

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
