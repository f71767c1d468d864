"""Planes that are rearranged lie as evenly as that needs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from billhook.compile.ir import Activate, Network, Op, Select, Value
from billhook.compile.planes import Matmul, Rearrange


def whole_planes(network: Network) -> Network:
    """Return the network with copies of planes that are read together but were selected from anywhere.

    A `Rearrange` whose rows run over several planes needs the same distances between them for every row, and
    so does a `Matmul` that takes its weights from them.
    """
    selected = {op.output: op for op in network if isinstance(op, Select)}
    ops: list[Op] = []
    for op in network:
        source = selected.get(op.inputs[0]) if isinstance(op, Rearrange | Matmul) else None
        if (
            isinstance(op, Rearrange | Matmul)
            and source is not None
            and op.distances(_addresses(source)) is None
        ):
            x = op.inputs[0]
            whole = Value(f"{op.output.name}.whole", x.channels, x.height, x.width)
            ops.append(Activate((x,), whole))
            op = replace(op, inputs=(whole, *op.inputs[1:]))
        ops.append(op)
    return network.with_ops(ops)


def _addresses(op: Select) -> npt.NDArray[np.int64]:
    """Return addresses as scattered as real ones can be: planes of every value have their own distance."""
    own = [(n + 1) * ((1 << 40) + np.arange(v.channels, dtype=np.int64)) for n, v in enumerate(op.inputs)]
    return np.concatenate(own)[op.planes]
