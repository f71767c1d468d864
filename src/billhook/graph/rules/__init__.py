"""How labels flow through operators: one file per family, one function per rule.

A rule gets a `Flow` (the labels so far) and a `Call` (the operator with its arguments by name) and returns
the labels of the result: one `Dims` for a tensor, a list of them for several tensors. It ties channels with
`flow.unify`, protects them with `flow.freeze`, says what it consumes with `flow.contract`, that it mixes
channels with `flow.mix`, and what it costs with `flow.macs`.
"""

from billhook.graph.rules._base import RULES, Call, Flow, rule
from billhook.graph.rules import (  # noqa: I001  (imported for their rules)
    attention as _attention,
    convolution as _convolution,
    elementwise as _elementwise,
    indexing as _indexing,
    linear as _linear,
    norm as _norm,
    passing as _passing,
    reduction as _reduction,
    reshape as _reshape,
    spatial as _spatial,
)

__all__ = ["RULES", "Call", "Flow", "rule"]
