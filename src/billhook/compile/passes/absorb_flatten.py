"""Linear layers read planes where they lie."""

from __future__ import annotations

from billhook.compile.ir import Flatten, Linear, Network


def absorb_flatten(network: Network) -> Network:
    """Return the network with linear layers that read planes where they were flattened for them."""
    flat = {op.output: op.inputs[0] for op in network if isinstance(op, Flatten) and not op.activation}
    ops = [op.reading(flat) if isinstance(op, Linear) else op for op in network]
    used = {v for op in ops for v in op.inputs} | {p.value for p in network.outputs}
    return network.with_ops([op for op in ops if not isinstance(op, Flatten) or op.output in used])
