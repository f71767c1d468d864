"""Pass: what is added to the result of a convolution is added by the convolution."""

from __future__ import annotations

from dataclasses import replace

from billhook.compile.ir import Binary, Convolution, Network, Op, Value


def fuse_residual(network: Network) -> Network:
    """Return the network with fewer additions.

    A convolution without activation whose result is only read by an addition of equal shapes takes the other
    summand as its second input. It then runs in the place of the addition, where both are there.
    """
    uses = network.uses
    makers: dict[Value, Convolution] = {}
    gone: set[Value] = set()
    ops: list[Op] = []
    for op in network:
        if isinstance(op, Convolution) and len(op.inputs) == 1 and not op.activation and uses[op.output] == 1:
            makers[op.output] = op
        made = next((v for v in _latest(op, makers)), None)
        if made is None:
            ops.append(op)
            continue
        maker, other = makers[made], next(v for v in op.inputs if v is not made)
        gone.add(made)
        ops.append(replace(maker, inputs=(*maker.inputs, other), output=op.output, activation=op.activation))
    return network.with_ops([op for op in ops if op.output not in gone])


def _latest(op: Op, makers: dict[Value, Convolution]) -> list[Value]:
    """Return the summands of an addition that convolutions make, the one that is made last first."""
    if not isinstance(op, Binary) or op.function != "add" or op.inputs[0] is op.inputs[1]:
        return []
    a, b = op.inputs
    if (a.channels, a.height, a.width) != (b.channels, b.height, b.width):
        return []
    order = list(makers)
    return sorted((v for v in op.inputs if v in makers), key=order.index, reverse=True)
