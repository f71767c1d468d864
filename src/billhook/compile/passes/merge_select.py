"""Pass: selections of selections become one, and those that change nothing go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from billhook.compile.ir import Integers, Network, Op, Select, Value

Owner = tuple[list[Value], Integers]


def merge_select(network: Network) -> Network:
    """Return the network in which no selection reads another, or takes all planes of a value in order."""
    selections: dict[Value, Select] = {}
    moved: dict[Value, Value] = {}
    ops: list[Op] = []
    for op in network:
        op = op.reading(moved)
        if not isinstance(op, Select):
            ops.append(op)
            continue
        op = _simplified(op, selections)
        if not op.activation:
            if len(op.inputs) == 1 and _takes_all(op):
                moved[op.output] = op.inputs[0]
                continue
            selections[op.output] = op
        ops.append(op)
    return network.with_ops(ops, moved)


def _simplified(op: Select, selections: dict[Value, Select]) -> Select:
    """Return the selection reading what selections before it read, each value once and none without use."""
    owners: list[tuple[Value, int]] = []  # of every plane that could be taken
    for value in op.inputs:
        inner = selections.get(value)
        if inner is None:
            owners += [(value, plane) for plane in range(value.channels)]
        else:
            table = [(v, plane) for v in inner.inputs for plane in range(v.channels)]
            owners += [table[plane] for plane in inner.planes]
    taken = [owners[plane] for plane in op.planes]
    inputs = tuple(dict.fromkeys(value for value, _ in taken))
    channels = np.cumsum([0, *(v.channels for v in inputs)])
    begins = dict(zip(inputs, channels.tolist(), strict=False))
    planes: npt.NDArray[np.int32] = np.array([begins[v] + plane for v, plane in taken], dtype=np.int32)
    return replace(op, inputs=inputs, planes=planes)


def _takes_all(op: Select) -> bool:
    return np.array_equal(op.planes, np.arange(op.inputs[0].channels))
