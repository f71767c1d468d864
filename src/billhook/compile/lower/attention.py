"""Lowering of products of two computed tensors, and of attention, which is two of them."""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

import numpy as np
import torch

from billhook.compile.lower.activations import softmax
from billhook.compile.lower.arithmetic import combine
from billhook.compile.lower.base import Builder, Refusal, operator
from billhook.compile.lower.constants import constant
from billhook.compile.lower.turned import Turned, lying, turned
from billhook.compile.lower.view import Doubles, View
from billhook.compile.planes import Matmul
from billhook.graph.rules._base import Call

_NEVER = -1e30  # what is added where a mask lets nothing through: its exponential is zero


def product(
    build: Builder, call: Call, a: View | Turned, b: View | Turned, scale: float = 1.0
) -> View | Turned:
    """Append a [..., m, k] · b [..., k, n] · scale.

    Planes of the second factor are mixed with weights from the first. Where k is a dimension of planes of the
    first, the transposed product is made: what attention needs, without moving anything.
    """
    if a.shape[:-2] != b.shape[:-2]:
        raise Refusal("repeats one of its factors")
    over = lying(a)
    if over[1][-1] < over[0].planes.ndim and over[0].pixels > 1:
        swapped = [*range(len(a.shape) - 2), len(a.shape) - 1, len(a.shape) - 2]
        made = _product(build, call, turned(b, swapped), turned(a, swapped), scale)
        return turned(made, swapped)
    return _product(build, call, a, b, scale)


def _product(build: Builder, call: Call, a: View | Turned, b: View | Turned, scale: float) -> View:
    """Append a product as planes [..., m] of n pixels."""
    name = call.node.name
    planes = _apart(build, b, name)
    swapped = [*range(len(a.shape) - 2), len(a.shape) - 1, len(a.shape) - 2]
    rows = turned(a, swapped)
    by_plane = not (isinstance(rows, View) and rows.spatial == rows.shape[-1:])
    weights = _apart(build, a if by_plane else rows, name)
    left, right = build.read(weights, name), build.read(planes, name)
    if right.is_vector:
        raise Refusal("has one pixel only")
    lead, groups = a.shape[:-2], prod(a.shape[:-2])
    size = (groups * a.shape[-2], right.height, right.width)
    made = build.run(Matmul, call, [left, right], size, groups=groups, by_plane=by_plane, scale=scale)
    return View(build.view(made).planes.reshape(*lead, a.shape[-2]), planes.spatial)


def _apart(build: Builder, x: View | Turned, name: str) -> View:
    """Return a tensor as planes, of which its last dimension alone is the pixels."""
    if isinstance(x, View) and (x.spatial == x.shape[-1:]):
        return x
    lead = x.shape[:-1]
    found = x if isinstance(x, Turned) else Turned(x, tuple(range(len(x.shape))))
    made = build.plain(found, name, (prod(lead), x.shape[-1]))
    return View(made.planes.reshape(lead), x.shape[-1:])


@operator("bmm")
def _bmm(build: Builder, call: Call) -> View | Turned:
    return product(build, call, build.loose(call, "self"), build.loose(call, "mat2"))


@operator("einsum")
def _einsum(build: Builder, call: Call) -> View | Turned:
    given, _, wanted = str(call["equation"]).replace(" ", "").partition("->")
    letters = given.split(",")
    tensors = [build.results[t] for t in call["tensors"]]
    if len(tensors) != 2 or "." in given or not all(isinstance(t, View | Turned) for t in tensors):
        raise Refusal("is no product of two computed tensors")
    a, b = letters
    over, own, other = set(a) & set(b) - set(wanted), set(a) - set(b), set(b) - set(a)
    lead = [n for n in wanted if n in a and n in b]
    if not (wanted and a[0] == b[0] == wanted[0] == lead[0]) or {len(over), len(own), len(other)} != {1}:
        raise Refusal(f"has no form as one product of matrices ({given}->{wanted})")
    (k,), (m,), (n,) = over, own, other
    if set(wanted) != {*lead, m, n}:
        raise Refusal(f"has no form as one product of matrices ({given}->{wanted})")
    left, right = (
        turned(t, [names.index(i) - 1 for i in (*lead[1:], *last)])
        for t, names, last in ((tensors[0], a, (m, k)), (tensors[1], b, (k, n)))
    )
    made = [*lead[1:], m, n]
    return turned(product(build, call, left, right), [made.index(i) for i in wanted[1:]])


@operator("scaled_dot_product_attention")
def _attention(build: Builder, call: Call) -> View | Turned:
    query, key, value = (build.loose(call, name) for name in ("query", "key", "value"))
    if call.get("dropout_p"):
        raise Refusal("drops numbers at random")
    scale = call.get("scale")
    scale = 1 / sqrt(query.shape[-1]) if scale is None else float(scale)
    rank = len(query.shape)
    swapped = [*range(rank - 2), rank - 1, rank - 2]
    scores, order = lying(product(build, call, query, turned(key, swapped), scale))
    mask = _mask(build, call, (query.shape[-2], key.shape[-2]), rank)
    if mask is not None:
        wide = np.broadcast_to(mask, (*query.shape[:-1], key.shape[-2]))
        lying_so = wide.transpose(np.argsort(order))
        scores = combine(build, call, "add", scores, constant(build, call, scores, lying_so))
    return product(build, call, softmax(build, call, turned(scores, order), rank - 1), value)


def _mask(build: Builder, call: Call, size: tuple[int, int], rank: int) -> Doubles | None:
    """Return what is added to the scores; None for nothing."""
    if call.get("is_causal"):
        return np.triu(np.full(size, _NEVER), 1)
    given: Any = build.constant(call, "attn_mask")
    if given is None:
        return None
    numbers = torch.where(given, 0.0, _NEVER) if given.dtype == torch.bool else given
    array: Doubles = numbers.detach().double().numpy()
    if array.ndim == rank + 1:
        if (array != array[:1]).any():
            raise Refusal("has a mask that differs from sample to sample")
        array = array[0]
    if (array <= _NEVER).all(-1).any():
        raise Refusal("has a mask that hides everything from one index")
    return array.clip(_NEVER, None)
