"""Tensors whose dimensions have another order than planes, rows and pixels: transposing moves nothing yet.

Networks with channels in the last dimension are mostly operators that do not care for the order, between two
permutations. So a permutation is remembered, and pixels move where an operator needs them in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from billhook.compile.ir import Integers
from billhook.compile.lower.view import Numbers, Shape, View


@dataclass(frozen=True, eq=False)
class Turned:
    """A view with its dimensions in another order.

    Attributes:
        view: Where the numbers are.
        order: Dimension d of a sample is dimension order[d] of the view.
    """

    view: View
    order: Shape

    @property
    def shape(self) -> Shape:
        """Of one sample."""
        return tuple(self.view.shape[d] for d in self.order)


def turned(x: View | Turned, order: Sequence[int]) -> View | Turned:
    """Return a tensor with its dimensions in another order; a view where no pixel has to move for that."""
    view, own = (x.view, x.order) if isinstance(x, Turned) else (x, tuple(range(len(x.shape))))
    order = tuple(own[d] for d in order)
    lead = view.planes.ndim
    if order[lead:] == tuple(range(lead, len(order))):
        return view.of(view.planes.transpose(order[:lead]))
    return Turned(view, order)


def lying(x: View | Turned) -> tuple[View, Shape]:
    """Return a tensor as a view, and the order that `turned` makes the tensor of it with."""
    return (x.view, x.order) if isinstance(x, Turned) else (x, tuple(range(len(x.shape))))


def inverse(order: Sequence[int]) -> Shape:
    """Return the order that undoes another."""
    return tuple(int(d) for d in np.argsort(order))


def reshaped(x: Turned, shape: Shape) -> View | Turned | None:
    """Return the numbers of a tensor as one of another shape; None if pixels must move for that."""
    view, lead = x.view, x.view.planes.ndim
    left = [d for d in x.order if view.shape[d] > 1]
    groups = _groups([view.shape[d] for d in left], [n for n in shape if n > 1])
    if groups is None:
        return None
    taken: list[int] = []  # dimensions of planes
    sizes: list[int] = []  # what they become
    lying: list[
        tuple[int, int, Shape]
    ] = []  # dimensions of pixels: the first one, the group, what it becomes
    begins: dict[int, int] = {}  # first dimension of what each group becomes
    for number, (old, new) in enumerate(groups):
        dims = [left[i] for i in old]
        if all(d < lead for d in dims):
            begins[number] = len(sizes)
            taken += dims
            sizes += new
        elif dims[0] >= lead and all(d >= lead for d in dims) and _follow(dims, view.shape):
            lying.append((dims[0], number, new))
        else:
            return None
    ones = shape.count(1)
    gone = [d for d in range(lead) if view.shape[d] == 1]
    planes = view.planes.transpose(*gone, *taken).reshape((*sizes, *[1] * ones))
    spatial: list[int] = []
    for _, number, new in sorted(lying):
        begins[number] = planes.ndim + len(spatial)
        spatial += new
    order = [begins[number] + i for number, (_, new) in enumerate(groups) for i in range(len(new))]
    sized, single = iter(order), iter(range(len(sizes), planes.ndim))
    return turned(View(planes, tuple(spatial)), [next(single if n == 1 else sized) for n in shape])


def _follow(dims: Sequence[int], shape: Shape) -> bool:
    """Return whether dimensions follow one another, but for some of size 1 between them."""
    between = set(range(dims[0], dims[-1] + 1)) - set(dims)
    return list(dims) == sorted(dims) and all(shape[d] == 1 for d in between)


def _groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[range, Shape]] | None:
    """Return the smallest groups of dimensions that hold the same numbers in both shapes."""
    found: list[tuple[range, Shape]] = []
    i = j = 0
    while i < len(old) and j < len(new):
        ends = [(i + a, j + b) for a in range(1, len(old) - i + 1) for b in range(1, len(new) - j + 1)]
        equal = (e for e in sorted(ends, key=sum) if prod(old[i : e[0]]) == prod(new[j : e[1]]))
        end = next(equal, None)
        if end is None:
            return None
        found.append((range(i, end[0]), tuple(new[j : end[1]])))
        i, j = end
    return found if (i, j) == (len(old), len(new)) else None


def places(x: Turned, size: Shape, plane: Shape) -> tuple[Integers, Integers] | None:
    """Return rows and columns of a `Rearrange` that makes `size` = channels, height, width of a tensor.

    Args:
        x: The tensor.
        size: Of the value that is made.
        plane: Height and width of the planes of the value that holds the tensor's view, in order.
    Returns:
        None if some place is not the sum of one of its row and one of its column.
    """
    channels, height, width = size
    steps = [prod(x.shape[d:]) for d in range(len(x.shape) + 1)]
    if not all(width % s == 0 or s % width == 0 for s in steps):
        return None
    tables = []
    for flat in (np.arange(channels * height, dtype=np.int64) * width, np.arange(width, dtype=np.int64)):
        digits = np.unravel_index(flat, x.shape)
        own = [digits[d] for d in inverse(x.order)]
        at: Numbers = np.ravel_multi_index(own, x.view.shape).astype(np.int64)
        pixels = at % x.view.pixels
        tables.append(np.stack([at // x.view.pixels, pixels // plane[1], pixels % plane[1]], 1))
    rows, columns = tables
    most = rows.max(0) + columns.max(0)
    if most[0] >= x.view.planes.size or most[1] >= plane[0] or most[2] >= plane[1]:
        return None
    return rows.astype(np.int32), columns.astype(np.int32)
