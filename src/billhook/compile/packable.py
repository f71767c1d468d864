"""What can be written as instructions; that the passes leave nothing else is the compiler's own business."""

from __future__ import annotations

from billhook.compile.ir import Convert, Flatten, Linear, Network, Op, Pad, Pool, Select
from billhook.compile.products import Phases, Product
from billhook.errors import CompileError

_IN_BYTES = (Product, Linear, Phases, Pad, Pool, Select, Convert)


def require_packable(network: Network, known: tuple[type[Op], ...]) -> None:
    """Raise if an operator has no instruction, or not the one that it would need.

    Raises:
        CompileError: names the operator.
    """
    for op in network:
        quantised = any(v.quantised for v in (*op.inputs, op.output))
        moves_bytes = isinstance(op, Pool) and quantised
        lacks = ""
        if type(op) not in known:
            lacks = "instruction"
        elif op.activation and (moves_bytes or isinstance(op, Phases | Pad | Flatten | Convert)):
            lacks = "activation"
        elif quantised and not isinstance(op, _IN_BYTES):
            lacks = "form in 8 bits"
        if lacks:
            raise CompileError(f"{op.kind} {op.output.name!r} has no {lacks}; this is a bug of the compiler")
