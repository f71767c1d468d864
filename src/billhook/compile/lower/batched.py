"""Tensors whose first dimension is not the batch, for as long as that takes.

Attention is often written with the batch in the second dimension, or in one with the heads. What is done then
are transpositions, other shapes, choices of one index and linear layers, until the batch is in front again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from torch import fx

from billhook.compile.lower.base import Builder, Refusal, fixed_shape, operator
from billhook.compile.lower.layers import linear_of
from billhook.compile.lower.turned import Turned, turned
from billhook.compile.lower.view import Shape, View
from billhook.compile.lower.views import take
from billhook.graph.rules._base import Call

BATCH = -1
Dims = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Batched:
    """A tensor with the batch at any place.

    Attributes:
        tensor: One sample.
        dims: For each dimension of the whole tensor, the dimensions of a sample that it holds, and -1 for the
            batch, in order.
        node: What has moved the batch.
    """

    tensor: View | Turned
    dims: Dims
    node: fx.Node

    def shape(self, batch: int) -> Shape:
        """Return the shape of the whole tensor."""
        sizes = (*self.tensor.shape, batch)  # -1 is the last
        return tuple(prod(sizes[d] for d in dims) for dims in self.dims)


def moved(x: View | Turned | Batched, order: Sequence[int], node: fx.Node) -> View | Turned | Batched:
    """Return a tensor with the dimensions of the whole tensor in another order."""
    if not isinstance(x, Batched):
        x = Batched(x, ((BATCH,), *((d,) for d in range(len(x.shape)))), node)
    return _settled(x, [x.dims[d] for d in order])


@operator("permute transpose swapaxes swapdims movedim moveaxis t numpy_T")
def _permute(build: Builder, call: Call) -> Any:
    x = build.loose(call)
    order = _order(call, len(x.shape) + 1)
    if order[0] != 0:
        return moved(x, order, call.node)
    return turned(x, [d - 1 for d in order[1:]])


def _order(call: Call, rank: int) -> list[int]:
    """Return which dimension of the whole tensor each one of the result is."""
    order = list(range(rank))
    if call.name == "permute":
        return [int(d) % rank for d in call["dims"]]
    if call.name in ("movedim", "moveaxis"):
        return _destined(rank, call["source"], call["destination"])
    a, b = _two_dims(call, rank)
    order[a], order[b] = order[b], order[a]
    return order


def _two_dims(call: Call, rank: int) -> tuple[int, int]:
    if call.name in ("t", "numpy_T"):
        return 0, 1
    a, b = (call.get(*names) for names in (("dim0", "axis0"), ("dim1", "axis1")))
    return int(a) % rank, int(b) % rank


def _destined(rank: int, source: Any, destination: Any) -> list[int]:
    sources, targets = ([d] if isinstance(d, int) else list(d) for d in (source, destination))
    order = [d for d in range(rank) if d not in {s % rank for s in sources}]
    for target, origin in sorted(zip([t % rank for t in targets], sources, strict=True)):
        order.insert(target, origin % rank)
    return order


def _settled(x: Batched, dims: Sequence[tuple[int, ...]]) -> View | Turned | Batched:
    """Return a tensor with some of the dimensions of another one, numbered anew."""
    kept = [d for group in dims for d in group if d != BATCH]
    tensor = turned(x.tensor, kept)
    number = {d: i for i, d in enumerate(kept)} | {BATCH: BATCH}
    made = tuple(tuple(number[d] for d in group) for group in dims)
    if made == ((BATCH,), *((d,) for d in range(len(kept)))):
        return tensor
    return Batched(tensor, made, x.node)


def _reshaped(build: Builder, call: Call, x: Batched) -> View | Turned | Batched:
    order = [d for group in x.dims for d in group]
    before = prod(x.tensor.shape[d] for d in order[: order.index(BATCH)])
    sizes: list[int] = []  # of a sample
    dims: list[tuple[int, ...]] = []
    behind, placed = 1, False
    for size in fixed_shape(call.node.meta["val"]):
        if placed or behind * size < before * build.batch:
            dims.append((len(sizes),))
            sizes.append(size)
        else:
            left, rest = divmod(before, behind)
            right, more = divmod(size, max(1, left) * build.batch)
            if rest or more:
                raise Refusal("mixes samples")
            group: list[int] = []
            for part in (left, BATCH, right):
                group.append(BATCH if part == BATCH else len(sizes))
                sizes += [] if part == BATCH else [part]
            # A single index needs no dimension.
            sizes, group = _without_ones(sizes, group)
            dims.append(tuple(group))
            placed = True
        behind *= size
    tensor = build.shaped(x.tensor, tuple(sizes), call.node.name)
    return _settled(Batched(tensor, tuple(dims), x.node), dims)


def _without_ones(sizes: list[int], group: list[int]) -> tuple[list[int], list[int]]:
    kept = [d for d in group if d == BATCH or sizes[d] != 1]
    first = min(d for d in group if d != BATCH)
    numbers = iter(range(first, len(sizes)))
    left = [sizes[d] for d in kept if d != BATCH]
    return sizes[:first] + left, [BATCH if d == BATCH else next(numbers) for d in kept]


def _permuted(build: Builder, call: Call, x: Batched) -> View | Turned | Batched:
    return moved(x, _order(call, len(x.dims)), x.node)


def _same(build: Builder, call: Call, x: Batched) -> Batched:
    return x


def _lone(x: Batched, dim: int) -> int:
    """Return the dimension of a sample that a dimension of the whole tensor is."""
    group = x.dims[dim % len(x.dims)]
    if len(group) != 1 or group[0] == BATCH:
        raise Refusal("works along the batch")
    return group[0]


def _selected(build: Builder, call: Call, x: Batched) -> View | Turned | Batched:
    axis = _lone(x, int(call["dim"]))
    return _one(build, call, x, axis, int(call["index"]) % x.tensor.shape[axis])


def _unbound(build: Builder, call: Call, x: Batched) -> list[View | Turned | Batched]:
    axis = _lone(x, int(call["dim"]))
    return [_one(build, call, x, axis, i) for i in range(x.tensor.shape[axis])]


def _one(build: Builder, call: Call, x: Batched, axis: int, index: int) -> View | Turned | Batched:
    tensor = take(build, call, x.tensor, axis, np.array([index]))
    shape = tuple(n for d, n in enumerate(tensor.shape) if d != axis)
    tensor = build.shaped(tensor, shape, call.node.name)
    dims = [tuple(d - (d > axis) for d in group) for group in x.dims if group != (axis,)]
    return _settled(Batched(tensor, tuple(dims), x.node), dims)


def _split(build: Builder, call: Call, x: Batched) -> list[Batched]:
    dim = int(call["dim"]) % len(x.dims)
    axis, begin = _lone(x, dim), 0
    made = []
    for part in call.node.meta["val"]:
        span = np.arange(begin, begin + int(part.shape[dim]))
        made.append(Batched(take(build, call, x.tensor, axis, span), x.dims, x.node))
        begin += span.size
    return made


def _linear(build: Builder, call: Call, x: Batched) -> View | Turned | Batched:
    axis = _lone(x, -1)
    if axis != len(x.tensor.shape) - 1 or axis == 0:
        raise Refusal("works along the batch")
    return Batched(linear_of(build, call, x.tensor), x.dims, x.node)


_TABLE: tuple[tuple[str, Callable[[Builder, Call, Batched], Any]], ...] = (
    ("permute transpose swapaxes swapdims movedim moveaxis t numpy_T", _permuted),
    ("view reshape flatten unflatten squeeze unsqueeze _unsafe_view", _reshaped),
    ("contiguous clone detach alias dropout", _same),
    ("chunk split split_with_sizes", _split),
    ("select", _selected),
    ("unbind", _unbound),
    ("linear", _linear),
)
_LOWERINGS = {name: lowering for names, lowering in _TABLE for name in names.split()}


def lower_batched(build: Builder, call: Call) -> Any:
    """Append an operator that reads a tensor with the batch at another place.

    Raises:
        Refusal: for all but a few operators.
    """
    x = build.operand(call, "self", "input")
    if not isinstance(x, Batched) or call.name not in _LOWERINGS or call.get("train"):
        raise Refusal("moves the batch")
    return _LOWERINGS[call.name](build, call, x)
