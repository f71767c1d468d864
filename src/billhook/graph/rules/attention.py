"""Scaled dot-product attention: heads pass, the head size of queries and keys is consumed."""

from __future__ import annotations

from math import prod

from billhook.graph.labels import Dims
from billhook.graph.rules._base import Call, Flow, rule, shape_of


@rule("scaled_dot_product_attention")
def attention(flow: Flow, call: Call) -> Dims:
    """query, key, value [..., tokens, size]; leading dimensions (batch, heads) unify."""
    q, k, v, mask = call["query"], call["key"], call["value"], call["attn_mask"]
    dq, dk, dv = flow.dims(q), flow.dims(k), flow.dims(v)
    if call["scale"] is None:  # 1/√(head size), so the head size itself must stay
        for labels in (dq[-1], dk[-1]):
            flow.freeze(call, labels, "the head size sets the scale of attention")
    else:
        flow.unify(call, dq[-1], dk[-1])
        flow.contract(call, q, -1)
        flow.contract(call, k, -1)
    for dims in (dq, dk, dv):
        flow.freeze(call, dims[-2], "attention runs over this dimension")
    leading: Dims = []
    for i in range(len(dq) - 2):
        if shape_of(q)[i] != shape_of(k)[i]:  # grouped-query attention
            for dims in (dq, dk, dv):
                flow.freeze(call, dims[i], "query heads share key heads")
        else:
            flow.unify(call, dq[i], dk[i])
            flow.unify(call, dq[i], dv[i])
        leading.append(dq[i])
    if mask is not None:
        for i, labels in enumerate(flow.dims(mask)):
            position = i - len(shape_of(mask))
            if shape_of(mask)[i] > 1 and labels is not None:
                other = leading[position + 2] if -position > 2 and -position - 2 <= len(leading) else None
                flow.unify(call, labels, other)
                flow.role(mask, i, "through")
    sizes = [s for s, d in zip(shape_of(q)[:-2], leading, strict=True) if d is None]
    tokens = shape_of(q)[-2] * shape_of(k)[-2]
    flow.macs(call, prod(sizes) * tokens * (1 if dq[-1] is not None else shape_of(q)[-1]), *leading, dq[-1])
    flow.macs(call, prod(sizes) * tokens * (1 if dv[-1] is not None else shape_of(v)[-1]), *leading, dv[-1])
    return [*leading, None, dv[-1]]
