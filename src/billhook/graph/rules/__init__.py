"""How labels flow through operators: one file per family, one function per rule.

A rule gets a `Flow` (the labels so far) and a `Call` (the operator with its arguments by name) and returns
the labels of the result: one `Dims` for a tensor, a list of them for several tensors. It ties channels with
`flow.unify`, protects them with `flow.freeze`, says what it consumes with `flow.contract`, that it mixes
channels with `flow.mix`, and what it costs with `flow.macs`.
"""

from __future__ import annotations

from billhook.graph.rules import (
    attention,
    convolution,
    elementwise,
    indexing,
    linear,
    norm,
    passing,
    reduction,
    reshape,
    selection,
    spatial,
)
from billhook.graph.rules._base import RULES, Call, Flow, rule

FAMILIES = (
    attention, convolution, elementwise, indexing, linear, norm, passing, reduction, reshape, selection,
    spatial,
)  # fmt: skip

__all__ = ["FAMILIES", "RULES", "Call", "Flow", "rule"]
