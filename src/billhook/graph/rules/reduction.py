"""Reductions and softmax: over other dimensions channels pass; over channels they are consumed or mixed."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from billhook.graph.labels import Dims
from billhook.graph.rules._base import Call, Flow, Result, each_of, rule

_SUMS = ("sum", "linalg_vector_norm", "norm", "nansum")  # a zero adds nothing to them


@rule(
    "sum mean nansum amax amin max min argmax argmin std var var_mean std_mean prod logsumexp norm "
    "linalg_vector_norm any all median count_nonzero"
)
def reduction(flow: Flow, call: Call) -> Result:
    """Sums consume the channels they run over; all other reductions mix them."""
    operand = call.operands[0]
    if call.name in ("max", "min") and len(call.operands) == 2:
        from billhook.graph.rules.elementwise import join

        return join(flow, call, call.operands)
    dims = flow.dims(operand)
    reduced = _dims(call.get("dim", "dims"), len(dims))
    keepdim = bool(call.get("keepdim"))
    power = call.get("ord", "p")
    sums = call.name in _SUMS and (power is None or 0 < float(power) < float("inf"))
    by_number = call.name in ("argmax", "argmin") or _uses_positions(call)
    for i in reduced:
        if by_number:
            flow.freeze(call, dims[i], f"{call.name} mixes channels and gives their numbers")
        elif sums:
            flow.contract(call, operand, i)
        else:
            flow.mix(call, dims[i], f"{call.name} mixes channels")
    left: Dims = [None if i in reduced else d for i, d in enumerate(dims) if keepdim or i not in reduced]
    return each_of(call, left)


@rule(
    "softmax _softmax log_softmax _log_softmax _safe_softmax softmin cumsum cumprod sort topk cummax "
    "cummin logcumsumexp"
)
def along(flow: Flow, call: Call) -> Result:
    """Softmax, sorting and running sums mix what they run over."""
    dims = flow.dims(call.operands[0])
    dim = int(call.get("dim") if call.get("dim") is not None else -1) % max(len(dims), 1)
    if dims and dims[dim] is not None:
        if call.name.endswith("softmax"):
            flow.mix(call, dims[dim], "softmax mixes channels")
        else:
            flow.freeze(call, dims[dim], f"{call.name} mixes channels")
            dims[dim] = None
    return each_of(call, dims)


def _uses_positions(call: Call) -> bool:
    """Return True if the network reads where an extreme value was, and not only the value."""
    return call.name in ("max", "min", "median") and any(
        u.target is operator.getitem and u.args[1] == 1 and u.users for u in call.node.users
    )


def _dims(dim: Any, rank: int) -> set[int]:
    if dim is None or (isinstance(dim, Sequence) and len(dim) == 0):
        return set(range(rank))
    return {int(d) % rank for d in (dim if isinstance(dim, Sequence) else [dim])}
