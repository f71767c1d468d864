"""Pass: what is done to joined planes is done by the operators that make them, before they are joined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from billhook.compile.ir import Activate, Affine, Convolution, Linear, Network, Op, Select, Value

_WEIGHTED = (Convolution, Linear)


def through_select(network: Network) -> Network:
    """Return the network in which convolutions, not a selection of their planes, are scaled and activated.

    Where only the selection reads them, all planes are taken once, and nothing reads the selection but a
    scale by channel or an activation: that then costs no pass over the planes any more. It becomes one
    operator for each convolution, of which the passes that follow leave none.
    """
    uses = network.uses
    makers: dict[Value, Op] = {}
    ops: list[Op] = []
    for op in network:
        joined = makers.get(op.inputs[0]) if isinstance(op, Affine | Activate) else None
        if (
            isinstance(op, Affine | Activate)
            and isinstance(joined, Select)
            and uses[joined.output] == 1
            and _once(joined)
            and all(_takes(makers.get(v)) and uses[v] == 1 for v in joined.inputs)
        ):
            apart = [_part(op, v, planes) for v, planes in _parts(joined)]
            makers.update((part.output, part) for part in apart)
            uses.update(part.output for part in apart)
            ops += apart
            op = replace(joined, inputs=tuple(part.output for part in apart), output=op.output)
        makers[op.output] = op
        ops.append(op)
    read = {v for op in ops for v in op.inputs} | {p.value for p in network.outputs}
    return network.with_ops([op for op in ops if not isinstance(op, Select) or op.output in read])


def _takes(maker: Op | None) -> bool:
    """Return True for operators into whose weights a scale, and then an activation, moves."""
    if isinstance(maker, Affine):
        return not maker.activation
    return isinstance(maker, _WEIGHTED) and len(maker.inputs) == 1 and not maker.activation


def _once(op: Select) -> bool:
    return np.array_equal(np.sort(op.planes), np.arange(sum(v.channels for v in op.inputs)))


def _parts(op: Select) -> list[tuple[Value, np.ndarray]]:
    """Return every input, and where its planes are in the output."""
    places = np.argsort(op.planes)
    ends = np.cumsum([v.channels for v in op.inputs])[:-1]
    return list(zip(op.inputs, np.split(places, ends), strict=True))


def _part(op: Affine | Activate, value: Value, planes: np.ndarray) -> Op:
    """Return what `op` does to some planes, done to the value that they are."""
    out = replace(value, name=f"{value.name}.{op.output.name}")
    if isinstance(op, Activate):
        return replace(op, inputs=(value,), output=out)
    return replace(op, inputs=(value,), output=out, scale=op.scale[planes], shift=op.shift[planes])
