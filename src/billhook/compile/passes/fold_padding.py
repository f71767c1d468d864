"""Pass: zeros around planes become the padding of the windows that read them."""

from __future__ import annotations

from dataclasses import replace

from billhook.compile.ir import Convolution, Network, Op, Pad, Pool, Value
from billhook.compile.passes.drop_unused import drop_unused


def fold_padding(network: Network) -> Network:
    """Return the network with fewer readers of `Pad`: convolutions, and averages that count zeros, pad."""
    padded: dict[Value, Pad] = {}
    ops: list[Op] = []
    for op in network:
        if isinstance(op, Pad) and not op.activation and min(op.padding) >= 0:
            padded[op.output] = op
        before = padded.get(op.inputs[0])
        counts = isinstance(op, Pool) and op.mode == "average"
        if (
            before is not None
            and isinstance(op, Convolution | Pool)
            and (counts or isinstance(op, Convolution))
        ):
            above, below, left, right = (a + b for a, b in zip(op.padding, before.padding, strict=True))
            inputs = (*before.inputs, *op.inputs[1:])
            op = replace(op, inputs=inputs, padding=(above, below, left, right))
        ops.append(op)
    return drop_unused(network.with_ops(ops))
