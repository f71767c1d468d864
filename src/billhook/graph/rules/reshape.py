"""Reshapes: how labels survive when dimensions are merged, split or moved.

Merging repeats labels. Splitting one dimension in two leaves the labels on one of them and holds the other
fixed; indices that share the carrying position leave together. Where the labels say themselves which
dimension varies (a merge that is undone), nothing is tied; otherwise `flow.carrier` chooses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from billhook.graph.labels import Dims, Labels
from billhook.graph.rules._base import Call, Flow, rule, shape_of

Block = tuple[list[int], list[int]]  # input dimensions, output dimensions with the same product


@rule(
    "view reshape _unsafe_view flatten unflatten squeeze unsqueeze view_as reshape_as ravel "
    "_reshape_alias view_copy atleast_1d atleast_2d atleast_3d squeeze_copy"
)
def reshape(flow: Flow, call: Call) -> Dims:
    """Match input and output dimensions in blocks of equal size and treat each block alone."""
    x = call.operands[0]
    before, after, dims = shape_of(x), call.shape, flow.dims(x)
    result: Dims = [None] * len(after)
    matched = blocks(before, after)
    if matched is None:
        for labels in dims:
            flow.freeze(call, labels, "reshape of another size")
        return result
    for sources, targets in matched:
        labelled = [i for i in sources if dims[i] is not None]
        if not labelled:
            continue
        if not targets:
            flow.freeze(call, dims[labelled[0]], "a dimension of one channel is dropped")
            continue
        for other in labelled[1:]:
            flow.freeze(call, dims[other], "merged with another dimension that carries channels")
        flat = _flatten(dims[labelled[0]], labelled[0], sources, before)
        if len(targets) == 1:
            result[targets[0]] = flat
        else:
            at, labels = _split(flow, call, flat, targets, after)
            result[at] = labels
    return result


def blocks(before: Sequence[int], after: Sequence[int]) -> list[Block] | None:
    """Return dimensions matched in the finest blocks of equal product, None if totals differ.

    Dimensions of size 1 are matched only with each other.
    """
    a = [i for i, s in enumerate(before) if s != 1]
    b = [i for i, s in enumerate(after) if s != 1]
    ones = [[i for i, s in enumerate(shape) if s == 1] for shape in (before, after)]
    result: list[Block] = [([i], []) for i in ones[0]]
    i = j = 0
    while i < len(a) or j < len(b):
        if i >= len(a) or j >= len(b):
            return None
        sources, targets = [a[i]], [b[j]]
        p, q = before[a[i]], after[b[j]]
        i, j = i + 1, j + 1
        while p != q:
            if p < q:
                if i >= len(a):
                    return None
                sources.append(a[i])
                p, i = p * before[a[i]], i + 1
            else:
                if j >= len(b):
                    return None
                targets.append(b[j])
                q, j = q * after[b[j]], j + 1
        result.append((sources, targets))
    return result


def _flatten(labels: Labels | None, at: int, sources: list[int], shape: Sequence[int]) -> Labels:
    """Return the labels of the merged dimension when only dimension `at` carries any."""
    assert labels is not None
    view = [1] * len(sources)
    view[sources.index(at)] = len(labels)
    return np.broadcast_to(labels.reshape(view), [shape[i] for i in sources]).reshape(-1)


def _split(
    flow: Flow, call: Call, flat: Labels, targets: list[int], shape: Sequence[int]
) -> tuple[int, Labels]:
    """Return which output dimension carries the labels and what they are; tie what must be tied."""
    grid = flat.reshape([shape[t] for t in targets])
    rows = [np.moveaxis(grid, k, 0).reshape(grid.shape[k], -1) for k in range(len(targets))]
    for k, row in enumerate(rows):
        if (row == row[:, :1]).all():
            return targets[k], row[:, 0]
    k = targets.index(flow.carrier(call, targets)) if flow.carrier is not None else 0
    flow.unify(call, rows[k][:, :1], rows[k])
    return targets[k], rows[k][:, 0]


@rule(
    "permute transpose t movedim moveaxis swapaxes swapdims numpy_T mT adjoint matrix_H permute_copy "
    "transpose_copy"
)
def permute(flow: Flow, call: Call) -> Dims:
    """Labels move with their dimensions."""
    x = call.operands[0]
    dims = flow.dims(x)
    return [dims[i] for i in order(call, len(dims))]


def order(call: Call, rank: int) -> list[int]:
    """Return the input dimension of each output dimension."""
    axes = list(range(rank))
    if call.name.startswith("permute"):
        return [int(d) % rank for d in call["dims"]]
    if call.name in ("movedim", "moveaxis"):
        source, target = (
            [d] if isinstance(d, int) else list(d) for d in (call["source"], call["destination"])
        )
        source, target = [d % rank for d in source], [d % rank for d in target]
        rest = iter([a for a in axes if a not in source])
        placed = dict(zip(target, source, strict=True))
        return [placed[i] if i in placed else next(rest) for i in axes]
    if call.name == "numpy_T":
        return axes[::-1]
    if rank < 2:
        return axes
    pair = (call.get("dim0", "axis0"), call.get("dim1", "axis1"))
    i, j = (-2, -1) if pair[0] is None else (int(pair[0]), int(pair[1]))
    axes[i], axes[j] = axes[j], axes[i]
    return axes


@rule("expand", "expand_as", "broadcast_to", "expand_copy")
def expand(flow: Flow, call: Call) -> Dims:
    """A size of 1 that is spread gets labels of its own: copies can leave one by one."""
    x = call.operands[0]
    before, after, dims = shape_of(x), call.shape, flow.dims(x)
    result: Dims = []
    for i, size in enumerate(after):
        at = i - len(after) + len(before)
        if at >= 0 and before[at] == size:
            result.append(dims[at])
            continue
        if at >= 0:
            flow.freeze(call, dims[at], "a single channel is spread over many")
        result.append(flow.store.fresh(size))
    return result


@rule("repeat", "tile")
def repeat(flow: Flow, call: Call) -> Dims:
    """Channels that are repeated leave with all their copies."""
    x = call.operands[0]
    before, after, dims = shape_of(x), call.shape, flow.dims(x)
    result: Dims = []
    for i, size in enumerate(after):
        at = i - len(after) + len(before)
        labels = dims[at] if at >= 0 else None
        if labels is not None:
            result.append(np.tile(labels, size // before[at]))
        elif at >= 0 and before[at] > 1:
            result.append(None)
        else:
            result.append(flow.store.fresh(size) if size > 1 else None)
    return result


@rule("repeat_interleave")
def repeat_interleave(flow: Flow, call: Call) -> Dims:
    """Like `repeat`, copies side by side; only for a fixed count along one dimension."""
    dims = flow.dims(call["self"])
    dim, repeats = call.get("dim"), call.get("repeats")
    if dim is None or not isinstance(repeats, int):
        for labels in dims:
            flow.freeze(call, labels, "repeated a varying number of times")
        return [None] * len(call.shape)
    labels = dims[int(dim)]
    dims[int(dim)] = None if labels is None else labels.repeat(repeats)
    return dims
