"""Pass: the sum of two products is one product over the planes of both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from billhook.compile.ir import Integers, Network, Op, Select, Value
from billhook.compile.passes.drop_unused import drop_unused
from billhook.compile.products import Product
from billhook.compile.tiles import ROWS, work


def join_products(network: Network) -> Network:
    """Return the network in which products take over the products that are added to them.

    As the shortcuts of residual networks do where they are convolutions: what these make is then neither
    written nor read. Only where nothing else reads it, and where the one product is no more work than two.
    """
    uses = network.uses
    makers: dict[Value, Product] = {}
    ops: list[Op] = []
    for op in network:
        added = makers.get(op.inputs[1]) if isinstance(op, Product) and len(op.inputs) > 1 else None
        if isinstance(op, Product) and added is not None and uses[added.output] == 1:
            ops += _joined(added, op) or [op]
        else:
            ops.append(op)
        if isinstance(op, Product) and not op.activation:
            makers[op.output] = op
    return drop_unused(network.with_ops(ops))


def _joined(added: Product, op: Product) -> list[Op]:
    """Return `op` and what it adds as one product, nothing if they do not fit or it is more work."""
    one, other = added.inputs[0], op.inputs[0]
    same_size = (one.height, one.width) == (other.height, other.width)
    in_bytes = any(
        v.quantised for o in (added, op) for v in (*o.inputs, o.output)
    )  # which have scales of their own
    if len(added.taps) != len(op.taps) or not same_size or one is other or in_bytes:
        return []
    planes: Integers = np.arange(other.channels + one.channels, dtype=np.int32)
    both = Value(f"{op.output.name}.read", len(planes), other.height, other.width)
    taps = added.taps + np.array([other.channels, 0, 0], np.int32)
    joined = replace(
        op,
        inputs=(both, *added.inputs[1:]),
        weight=np.concatenate([op.weight, added.weight], 2),
        taps=np.concatenate([op.taps, taps], 1),
        bias=op.bias + added.bias,
    )
    if _least(joined) > _least(op) + _least(added):
        return []
    return [Select((other, one), both, planes), joined]


def _least(op: Product) -> float:
    return min(work(op, rows) for rows in ROWS)
