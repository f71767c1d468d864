"""Lowering of what works on one dimension of a tensor: it becomes the dimension of planes."""

from __future__ import annotations

from math import prod

from billhook.compile.lower.base import Builder
from billhook.compile.lower.turned import Turned, lying, turned
from billhook.compile.lower.view import Shape, View

_MOST_VECTORS = 16  # side by side, as planes of one number


def channels_first(build: Builder, x: View | Turned, dim: int, name: str) -> tuple[View, Shape]:
    """Return a tensor as a view whose last dimension of planes is dimension `dim`, and its order.

    Nothing moves if that dimension already is one of planes.
    """
    view, order = lying(x)
    at, lead = order[dim], view.planes.ndim
    if at < lead:
        others = view.planes.size // view.shape[at]
        if view.pixels > 1 or others <= _MOST_VECTORS:
            front = [d for d in range(lead) if d != at]
            moved = view.of(view.planes.transpose(*front, at))
            place = {d: i for i, d in enumerate([*front, at, *range(lead, len(order))])}
            return moved, tuple(place[d] for d in order)
    rest = [d for d in range(len(order)) if d != dim]
    sizes = tuple(x.shape[d] for d in rest)
    found = turned(x, [dim, *rest])
    shape = (x.shape[dim], prod(sizes))
    if isinstance(found, View):
        found = Turned(found, tuple(range(len(found.shape))))
    planes = build.plain(found, name, shape).planes
    made = View(planes.reshape(-1), sizes)
    place = {d: i for i, d in enumerate([dim, *rest])}
    return made, tuple(place[d] for d in range(len(order)))
