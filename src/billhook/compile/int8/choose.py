"""Which operators compute in integers: windows and matrices, and what moves numbers between them."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import numpy as np

from billhook.compile.ir import (
    QUAD,
    Convolution,
    Flatten,
    Linear,
    Network,
    Op,
    Pad,
    Pool,
    Select,
    Value,
)

Reasons = dict[Op, str]
WEIGHTED = (Convolution, Linear)


def choose(network: Network, keep: tuple[str, ...] = (), refused: Mapping[Op, str] | None = None) -> Reasons:
    """Return, for every operator, why it computes in float32; "" for integers.

    Operators that only move numbers, or take the largest of them, follow what makes their input.

    Args:
        network: After the passes.
        keep: Names of outputs of operators that shall stay in float32; * and ? match.
        refused: Operators that must stay in float32, and why.
    """
    reasons = {op: (refused or {}).get(op) or _refusal(op, keep) for op in network}
    outputs = {p.value for p in network.outputs}
    readers: dict[Value, list[Op]] = {v: [] for v in network.values}
    for op in network:
        for value in op.inputs:
            readers[value].append(op)
    _selections_for_none(network, reasons, readers)
    in_bytes: set[Value] = set()
    for op in network:
        if not reasons[op]:
            reasons[op] = _alone(op, reasons, readers, in_bytes, outputs)
        if not reasons[op] and makes_bytes(op):
            in_bytes.add(op.output)
    return reasons


def makes_bytes(op: Op) -> bool:
    """Return True if an operator that computes in integers also writes 8 bits."""
    return moves(op) or (isinstance(op, Convolution) and not op.output.is_vector)


def moves(op: Op) -> bool:
    """Return True if every number that the operator makes is one that it reads, or zero."""
    return isinstance(op, Pad | Select | Flatten) or (isinstance(op, Pool) and op.mode == "max")


def _refusal(op: Op, keep: tuple[str, ...]) -> str:
    if not (isinstance(op, WEIGHTED) or (moves(op) and not op.activation)):
        return "has no form in integers"
    if any(fnmatchcase(op.output.name, pattern) for pattern in keep):
        return "is kept"
    if isinstance(op, Convolution) and op.output.is_vector and len(op.inputs) > 1:
        return "makes one pixel and adds another value"
    if isinstance(op, Select) and not _takes_quads(op):
        return "takes channels apart that lie in one quad"
    if isinstance(op, WEIGHTED) and not (np.isfinite(op.weight).all() and np.isfinite(op.bias).all()):
        return "has weights that are not finite"
    return ""


def _takes_quads(op: Select) -> bool:
    """Return True if the channels, four by four, are quads of the inputs."""
    quads = []
    for i in range(0, len(op.planes), QUAD):
        quads.append(tuple(op.planes[i : i + QUAD].tolist()))
    known, first = set(), 0
    for value in op.inputs:
        for channel in range(first, first + value.channels, QUAD):
            known.add(tuple(range(channel, min(channel + QUAD, first + value.channels))))
        first += value.channels
    # One that is not full can only come last: four others would not begin behind it.
    return all(quad in known for quad in quads) and all(len(quad) == QUAD for quad in quads[:-1])


def _selections_for_none(network: Network, reasons: Reasons, readers: Mapping[Value, list[Op]]) -> None:
    """Refuse selections that nobody reads in integers: planes in float32 are selected for nothing."""
    for op in reversed(network.ops):
        if isinstance(op, Select) and not reasons[op] and all(reasons[r] for r in readers[op.output]):
            reasons[op] = "is read in float32"


def _alone(
    op: Op,
    reasons: Reasons,
    readers: Mapping[Value, list[Op]],
    in_bytes: set[Value],
    outputs: set[Value],
) -> str:
    """Return why an operator does not compute in integers where others around it do; "" if it does."""
    if isinstance(op, Flatten):
        read = readers[op.output]
        linear = all(isinstance(r, Linear) and not reasons[r] for r in read)
        return "" if read and linear and op.output not in outputs else "is read by other than linear layers"
    if isinstance(op, WEIGHTED) or any(v in in_bytes for v in op.inputs):
        return ""
    return "reads float32"
