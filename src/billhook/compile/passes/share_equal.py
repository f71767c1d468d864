"""Pass: what is computed several times is computed once."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from billhook.compile.ir import Binary, Network, Op, Value

_SYMMETRIC = ("add", "multiply", "maximum", "minimum")


def share_equal(network: Network) -> Network:
    """Return the network without operators that do what one before them does with the same values."""
    known: dict[Any, list[Op]] = {}
    moved: dict[Value, Value] = {}
    ops: list[Op] = []
    for op in network:
        op = op.reading(moved)
        alike = known.setdefault((type(op), _read(op), op.activation), [])
        first = next((other for other in alike if _equal(op, other)), None)
        if first is None:
            alike.append(op)
            ops.append(op)
        else:
            moved[op.output] = first.output
    return network.with_ops(ops, moved)


def _read(op: Op) -> tuple[int, ...]:
    """Return which values are read, where their order counts in order."""
    read = [id(v) for v in op.inputs]
    a, *b = op.inputs
    same_size = all((v.channels, v.pixels) == (a.channels, a.pixels) for v in b)
    symmetric = isinstance(op, Binary) and op.function in _SYMMETRIC and same_size
    return tuple(sorted(read) if symmetric else read)


def _equal(a: Op, b: Op) -> bool:
    """Return True if two operators of one type have equal settings, weights and sizes of what they make."""
    size, other = ((op.output.channels, op.output.height, op.output.width) for op in (a, b))
    own = [f.name for f in fields(a) if f.name not in ("inputs", "output", "activation")]
    return size == other and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in own)
