"""Joining, cutting and picking."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx

from billhook.graph.labels import FIXED, Dims, Labels
from billhook.graph.rules._base import Call, Flow, as_int, is_tensor, rule, shape_of


@rule("cat", "concat", "concatenate", "hstack", "vstack")
def cat(flow: Flow, call: Call) -> Dims:
    """Labels are put one after the other; the other dimensions unify."""
    operands = [o for o in call.operands if shape_of(o) != (0,)]
    rank = len(call.shape)
    dim = {"hstack": min(1, rank - 1), "vstack": 0}.get(call.name, call.get("dim") or 0) % rank
    result: Dims = []
    for i in range(rank):
        parts = [flow.dims(o)[i] for o in operands]
        present = next((p for p in parts if p is not None), None)
        if present is None:
            result.append(None)
        elif i == dim:
            sizes = [shape_of(o)[i] for o in operands]
            result.append(np.concatenate([_or_fixed(p, s) for p, s in zip(parts, sizes, strict=True)]))
            for operand in operands:
                flow.role(operand, i, "through")
        else:
            for part, operand in zip(parts, operands, strict=True):
                flow.unify(call, present, part)
                flow.role(operand, i, "through")
            result.append(present)
    return result


def _or_fixed(labels: Labels | None, size: int) -> Labels:
    return np.full(size, FIXED, dtype=np.int64) if labels is None else labels


@rule("stack")
def stack(flow: Flow, call: Call) -> Dims:
    """A new dimension without channels; all others unify."""
    operands = call.operands
    rank = len(call.shape)
    dims: Dims = []
    for i in range(rank - 1):
        parts = [flow.dims(o)[i] for o in operands]
        present = next((p for p in parts if p is not None), None)
        for part in parts:
            flow.unify(call, present, part)
        dims.append(present)
    dims.insert(int(call["dim"]) % rank, None)
    return dims


@rule(
    "chunk",
    "split",
    "split_with_sizes",
    "tensor_split",
    "unsafe_split",
    "unsafe_chunk",
    "unsafe_split_with_sizes",
    "hsplit",
)
def split(flow: Flow, call: Call) -> list[Dims]:
    """Each part keeps its labels.

    `chunk(n)` and `split(size)` are written for parts of equal size, so the same position leaves in every
    part and the user's forward stays right (unless `flow.tie_parts` is off, see `graph.capture_call`);
    parts of given sizes are free.
    """
    x = call.operands[0]
    dims = flow.dims(x)
    dim = int(call.get("dim") or 0) % len(dims)
    sizes = [tuple(as_int(s) for s in v.shape)[dim] for v in call.node.meta["val"]]
    labels = dims[dim]
    if labels is None:
        return [list(dims) for _ in sizes]
    parts = np.split(labels, np.cumsum(sizes)[:-1])
    if flow.tie_parts and "with_sizes" not in call.name:
        if len(set(sizes)) == 1:
            flow.tied_parts = True
            for part in parts[1:]:
                flow.unify(call, parts[0], part)
        elif not isinstance(call.get("sections", "split_size", "indices"), (list, tuple)):
            flow.freeze(call, labels, f"{call.name} into parts of unequal size")
    return [[*dims[:dim], part, *dims[dim + 1 :]] for part in parts]


@rule("unbind")
def unbind(flow: Flow, call: Call) -> list[Dims]:
    """The dimension is taken apart: its indices must stay."""
    dims = flow.dims(call["self"])
    dim = int(call["dim"]) % len(dims)
    flow.freeze(call, dims[dim], "unbind takes every index of this dimension")
    return [[*dims[:dim], *dims[dim + 1 :]] for _ in call.node.meta["val"]]


@rule("select")
def select(flow: Flow, call: Call) -> Dims:
    """One index is picked by number: the dimension must stay as it is."""
    dims = flow.dims(call["self"])
    dim = int(call["dim"]) % len(dims)
    flow.freeze(call, dims[dim], "a channel is picked by its number")
    return [*dims[:dim], *dims[dim + 1 :]]


@rule("slice", "narrow")
def cut(flow: Flow, call: Call) -> Dims:
    """A range keeps its labels."""
    x = call["self"]
    dims = flow.dims(x)
    dim = int(call["dim"]) % len(dims)
    labels = dims[dim]
    if labels is not None:
        dims[dim] = labels[slice_of(call, shape_of(x)[dim])]
    return dims


def slice_of(call: Call, size: int) -> slice:
    """Return the range that a slice or narrow takes out of `size` indices."""
    if call.name == "narrow":
        start = as_int(call["start"]) % max(size, 1)
        return slice(start, start + as_int(call["length"]))
    start, end = call["start"], call["end"]
    bounds = slice(
        None if start is None else as_int(start), None if end is None else as_int(end), as_int(call["step"])
    )
    return slice(*bounds.indices(size))


@rule("slice_scatter")
def slice_scatter(flow: Flow, call: Call) -> Dims:
    """A range is replaced: it unifies with what replaces it."""
    dims, source = flow.dims(call["self"]), flow.dims(call["src"])
    dim = int(call["dim"]) % len(dims)
    for i, (own, other) in enumerate(zip(dims, source, strict=True)):
        if i == dim and own is not None:
            size = shape_of(call["self"])[i]
            own = own[slice(*slice(call["start"], call["end"], call["step"]).indices(size))]
        flow.unify(call, own, other)
    return dims


@rule("index")
def index(flow: Flow, call: Call) -> Dims:
    """Dimensions that are looked up must stay; the others pass."""
    x = call["self"]
    dims, indices = flow.dims(x), list(call["indices"])
    used = [i for i, v in enumerate(indices) if v is not None]
    rank = max(len(_index_shape(indices[i])) for i in used)
    for i in used:
        flow.freeze(call, dims[i], "indices are looked up by number")
    left: Dims = [d for i, d in enumerate(dims) if i not in used]
    if used != list(range(used[0], used[-1] + 1)):
        return [*[None] * rank, *left]
    result: Dims = [*left[: used[0]], *[None] * rank, *left[used[0] :]]
    # Boolean masks take several dimensions at once; then nothing is known.
    return result if len(result) == len(call.shape) else _freeze_all(flow, call)


def _index_shape(value: Any) -> tuple[int, ...]:
    return shape_of(value) if isinstance(value, fx.Node) and is_tensor(value) else ()


def _freeze_all(flow: Flow, call: Call) -> Dims:
    for labels in flow.dims(call["self"]):
        flow.freeze(call, labels, "picked by a mask")
    return [None] * len(call.shape)


@rule("index_select")
def index_select(flow: Flow, call: Call) -> Dims:
    """One dimension is looked up; the others pass."""
    dims = flow.dims(call["self"])
    dim = int(call["dim"]) % len(dims)
    flow.freeze(call, dims[dim], "indices are looked up by number")
    dims[dim] = None
    return dims


@rule("gather")
def gather(flow: Flow, call: Call) -> Dims:
    """One dimension is looked up; along the others every entry has its own index."""
    x, index = call["self"], call["index"]
    dims, positions = flow.dims(x), flow.dims(index)
    dim = int(call["dim"]) % len(dims)
    flow.freeze(call, dims[dim], "indices are looked up by number")
    for i, size in enumerate(shape_of(index)):
        if i == dim:
            continue
        if size == shape_of(x)[i]:
            flow.unify(call, dims[i], positions[i])
        else:
            flow.freeze(call, dims[i], "only a part of this dimension is looked up")
            dims[i] = positions[i]
    dims[dim] = positions[dim]
    return dims


@rule("embedding")
def embedding(flow: Flow, call: Call) -> Dims:
    """weight [vocabulary, size]: the size is produced, the vocabulary stays."""
    axes = flow.dims(call["weight"])
    flow.freeze(call, axes[0], "entries of an embedding are looked up by number")
    flow.role(call["weight"], 1, "out")
    for labels in flow.dims(call["indices"]):
        flow.freeze(call, labels, "holds indices")
    return [*[None] * len(shape_of(call["indices"])), axes[1]]
