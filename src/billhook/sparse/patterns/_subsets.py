"""The best set of rows × set of columns of small blocks, by trying all sets of one side."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]

MOST_SUBSETS_OF = 12  # at most 924 sets of one size
_AT_ONCE = 2**22  # numbers in memory


def best_rows_and_columns(blocks: Array, budget: int) -> tuple[Flags, Flags]:
    """Return the rows and the columns of every block whose crossings keep the most energy.

    Exact: for r rows, the best columns are those with the largest sums over these rows, as many as the budget
    allows. What is tried is every set of r rows or, where these are fewer, every set of the columns that go
    with them, for every r that no larger one beats. Of equal choices, the first.

    Args:
        blocks: Energies, at least 0: [blocks, p, q]; min(p, q) is at most `MOST_SUBSETS_OF`.
        budget: How many weights of each block may stay.
    """
    count, p, q = blocks.shape
    best = np.full(count, -1.0)
    rows, columns = np.zeros((count, p), dtype=bool), np.zeros((count, q), dtype=bool)
    if blocks.dtype not in (np.float32, np.float64):
        blocks = blocks.astype(np.float32)
    turned = np.ascontiguousarray(blocks.swapaxes(1, 2))
    for r, c in sizes(p, q, budget):
        over_rows = comb(p, r) <= comb(q, c)
        sets, values, (tried, taken) = (
            (_sets(p, r), turned, (rows, columns)) if over_rows else (_sets(q, c), blocks, (columns, rows))
        )
        step = max(1, _AT_ONCE // (len(sets) * values.shape[1]))
        for start in range(0, count, step):
            here = slice(start, start + step)
            energy, set_of, flags = _best_of(values[here], sets, c if over_rows else r)
            better = energy > best[here]
            best[here][better] = energy[better]
            tried[here][better] = sets[set_of[better]]
            taken[here][better] = flags[better]
    return rows, columns


def sizes(p: int, q: int, budget: int) -> Iterator[tuple[int, int]]:
    """Yield the numbers of rows and columns whose crossings fit the budget and that cannot both grow."""
    for r in range(1, min(p, budget) + 1):
        c = min(q, budget // r)
        if r == p or min(q, budget // (r + 1)) < c:
            yield r, c


def _sets(n: int, size: int) -> Flags:
    """Return all sets of `size` of n things: [sets, n]."""
    flags = np.zeros((comb(n, size), n), dtype=bool)
    for i, chosen in enumerate(combinations(range(n), size)):
        flags[i, list(chosen)] = True
    return flags


def _best_of(values: Array, sets: Flags, count: int) -> tuple[Array, Array, Flags]:
    """Return the energy of the best set, which it is, and the `count` largest sums over it.

    Args:
        values: [blocks, the other side, the side that sets are of].
        sets: [sets, the side that they are of].
        count: How many of the other side stay.
    """
    blocks, other, side = values.shape
    sums = values.reshape(-1, side) @ sets.T.astype(values.dtype)
    sums = sums.reshape(blocks, other, -1).swapaxes(1, 2)  # [blocks, sets, other]
    if count < other:
        energy = np.partition(sums, other - count, axis=2)[:, :, other - count :].sum(2)
    else:
        energy = sums.sum(2)
    chosen = energy.argmax(1)
    of_chosen = np.take_along_axis(sums, chosen[:, None, None], axis=1)[:, 0]
    largest = np.argsort(-of_chosen, axis=1, kind="stable")[:, :count]
    flags = np.zeros((blocks, other), dtype=bool)
    np.put_along_axis(flags, largest, True, axis=1)
    return energy.max(1), chosen, flags
