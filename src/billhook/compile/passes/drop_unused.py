"""Pass: operators whose results nobody reads go."""

from __future__ import annotations

from billhook.compile.ir import Network, Op


def drop_unused(network: Network) -> Network:
    """Return the network without operators that no output depends on."""
    needed = {port.value for port in network.outputs}
    kept: list[Op] = []
    for op in reversed(network.ops):
        if op.output in needed:
            needed.update(op.inputs)
            kept.append(op)
    return network.with_ops(kept[::-1])
