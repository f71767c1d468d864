"""Linear layers and matrix products: the contracted dimension is consumed."""

from __future__ import annotations

from math import prod

from torch import fx

from billhook.graph.labels import Dims, Labels
from billhook.graph.rules._base import Call, Flow, no_channels, rule, shape_of


@rule("linear")
def linear(flow: Flow, call: Call) -> Dims:
    """x [..., in] · weight [out, in]ᵀ + bias [out]."""
    x, weight, bias = call["input"], call["weight"], call["bias"]
    dims, axes = flow.dims(x), flow.dims(weight)
    flow.role(weight, 0, "out")
    flow.role(weight, 1, "in")
    flow.unify(call, dims[-1], axes[1])
    flow.contract(call, x, -1)
    if bias is not None:
        flow.unify(call, axes[0], flow.dims(bias)[0])
        flow.role(bias, 0, "out")
    leading = [(s, d) for s, d in zip(shape_of(x)[:-1], dims[:-1], strict=True)]
    free = prod(s for s, d in leading if d is None)
    rest = prod(s for s, a in zip(shape_of(weight), axes, strict=True) if a is None)
    flow.macs(call, free * rest, *(d for _, d in leading), *axes)
    return [*dims[:-1], axes[0]]


@rule("matmul", "mm", "bmm", "mv", "dot", "addmm", "baddbmm")
def matrix_product(flow: Flow, call: Call) -> Dims:
    """a [..., m, k] · b [..., k, n], vectors as usual; leading dimensions broadcast and unify."""
    if call.name in ("addmm", "baddbmm"):
        a, b = call.get("mat1", "batch1"), call.get("mat2", "batch2")
    else:
        a, b = call["self"], call.get("other", "mat2", "vec", "tensor")
    result = product(flow, call, a, b)
    if call.name in ("addmm", "baddbmm"):
        bias = call["self"]
        for position, labels in enumerate(reversed(flow.dims(bias)), start=1):
            if shape_of(bias)[-position] > 1 and position <= len(result):
                flow.unify(call, labels, result[-position])
                flow.role(bias, -position, "out")
    return result


def product(flow: Flow, call: Call, a: fx.Node, b: fx.Node) -> Dims:
    """Unify and cost a (batched) matrix product; return the labels of the result."""
    da, db = flow.dims(a), flow.dims(b)
    sa, sb = shape_of(a), shape_of(b)
    ka, kb = -1, (-2 if len(sb) > 1 else -1)
    flow.unify(call, da[ka], db[kb])
    flow.contract(call, a, ka)
    flow.contract(call, b, kb)
    for operand, dims in ((a, da), (b, db)):
        produced = -2 if operand is a else -1
        consumed = ka if operand is a else kb
        if len(dims) > 1:
            flow.role(operand, produced, "out")
        flow.role(operand, consumed, "in")
    batch: Dims = []
    if len(sa) > 2 or len(sb) > 2:
        batch = _batch(flow, call, a, b)
    rows: Dims = [da[-2]] if len(sa) > 1 else []
    columns: Dims = [db[-1]] if len(sb) > 1 else []
    sizes = [*_batch_sizes(sa, sb), *sa[-2:], *(sb[-1:] if len(sb) > 1 else ())]
    labelled: Dims = [*batch, *rows, da[-1], *columns]
    constant = prod(s for s, d in zip(sizes, labelled, strict=True) if d is None)
    flow.macs(call, constant, *labelled)
    return [*batch, *rows, *columns]


def _batch_sizes(sa: tuple[int, ...], sb: tuple[int, ...]) -> list[int]:
    rank = max(len(sa), len(sb)) - 2
    if rank <= 0:
        return []
    pa = [1] * (rank - len(sa[:-2])) + list(sa[:-2])
    pb = [1] * (rank - len(sb[:-2])) + list(sb[:-2])
    return [max(x, y) for x, y in zip(pa, pb, strict=True)]


def _batch(flow: Flow, call: Call, a: fx.Node, b: fx.Node) -> Dims:
    """Unify the leading dimensions like an element-wise operator would."""
    sizes = _batch_sizes(shape_of(a), shape_of(b))
    result: Dims = []
    for position in range(len(sizes), 0, -1):
        meeting: list[Labels | None] = []
        for operand in (a, b):
            shape, dims = shape_of(operand), flow.dims(operand)
            at = -position - 2
            if len(shape) < -at:
                continue
            if shape[at] == sizes[-position]:
                meeting.append(dims[at])
                if dims[at] is not None:
                    flow.role(operand, at, "through")
            else:
                flow.freeze(call, dims[at], "a single channel is spread over many")
        if len(meeting) == 2:
            flow.unify(call, meeting[0], meeting[1])
        result.append(next((m for m in meeting if m is not None), None))
    return result


@rule("einsum")
def einsum(flow: Flow, call: Call) -> Dims:
    """Equal letters unify; letters that do not come out are consumed."""
    equation = str(call["equation"]).replace(" ", "")
    operands = list(call["tensors"])
    if "." in equation:
        for operand in operands:
            for axis in flow.dims(operand):
                flow.freeze(call, axis, "einsum with an ellipsis")
        return no_channels(call.node)
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    letters = sorted({c for t in terms for c in t})
    if not arrow:
        right = "".join(c for c in letters if left.count(c) == 1)
    labels: dict[str, Labels | None] = {}
    sizes: dict[str, int] = {}
    for term, operand in zip(terms, operands, strict=True):
        for dim, (letter, own) in enumerate(zip(term, flow.dims(operand), strict=True)):
            size = shape_of(operand)[dim]
            if size == 1 and sizes.get(letter, 1) > 1:
                flow.freeze(call, own, "a single channel is spread over many")
                continue
            if letter in labels and sizes[letter] == size:
                flow.unify(call, labels[letter], own)
            if labels.get(letter) is None or sizes[letter] < size:
                labels[letter] = own
            sizes[letter] = max(size, sizes.get(letter, 1))
            if letter not in right:
                flow.role(operand, dim, "in")
                flow.contract(call, operand, dim)
            else:
                flow.role(operand, dim, "out" if left.count(letter) == 1 else "through")
    constant = prod(sizes[c] for c in letters if labels[c] is None)
    flow.macs(call, constant, *(labels[c] for c in letters))
    return [labels[c] for c in right]


@rule("outer", "ger")
def outer(flow: Flow, call: Call) -> Dims:
    """a [m] × b [n] → [m, n]."""
    return [flow.dims(call["self"])[0], flow.dims(call.get("vec2"))[0]]
