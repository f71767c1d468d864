"""Matrices in blocks of rows that share their kept columns: what the engine's products read.

All zeros count, wherever they come from. A column stays in a block if one of its rows needs it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from billhook.compile.ir import Floats, Integers


@dataclass(frozen=True)
class Blocks:
    """A matrix in blocks of rows.

    Attributes:
        rows: In a block.
        order: Number of the matrix row in each place, -1 where a block is not full. [blocks · rows].
        starts: First column of each block, and the end. [blocks + 1].
        columns: Numbers of kept columns, block after block; of one block if `shared`.
        weights: [sum of columns, rows].
        shared: All blocks keep the same columns.
    """

    rows: int
    order: Integers
    starts: npt.NDArray[np.uint32]
    columns: Integers
    weights: Floats
    shared: bool = False

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.starts) - 1


def in_blocks(groups: Iterable[Floats], rows: int, *, in_order: bool = False) -> Blocks:
    """Return matrices [outputs, k], one per group, in blocks of `rows` rows.

    Columns of group g count from g · k on. Rows without any weight come last, in blocks of their own, unless
    rows stay `in_order`.
    """
    order: list[npt.NDArray[np.int32]] = []
    columns: list[npt.NDArray[np.int32]] = []
    weights: list[Floats] = []
    first = 0
    for g, matrix in enumerate(groups):
        for block in _split(matrix, rows, in_order):
            own = np.full(rows, -1, np.int32)
            own[: len(block)] = first + block
            kept = np.flatnonzero(matrix[block].any(axis=0)).astype(np.int32)
            filled = np.zeros((len(kept), rows), np.float32)
            filled[:, : len(block)] = matrix[np.ix_(block, kept)].T
            order.append(own)
            columns.append(kept + np.int32(g * matrix.shape[1]))
            weights.append(filled)
        first += len(matrix)
    starts = np.cumsum([0, *(len(c) for c in columns)]).astype(np.uint32)
    same = len(columns) > 1 and all(np.array_equal(c, columns[0]) for c in columns)
    return Blocks(
        rows,
        np.concatenate(order),
        starts,
        columns[0] if same else np.concatenate(columns),
        np.concatenate(weights),
        shared=same,
    )


def multiplications(groups: Iterable[Floats], rows: int) -> int:
    """Return how many weights would be multiplied with each pixel in blocks of `rows` rows."""
    total = 0
    for matrix in groups:
        alive = matrix[matrix.any(axis=1)] != 0
        whole = np.zeros((-(-len(alive) // rows) * rows, matrix.shape[1]), bool)
        whole[: len(alive)] = alive
        total += rows * int(whole.reshape(-1, rows, matrix.shape[1]).any(axis=1).sum())
    return total


def _split(matrix: Floats, rows: int, in_order: bool) -> list[npt.NDArray[np.int64]]:
    """Return the numbers of the rows of each block."""
    alive = matrix.any(axis=1) | in_order
    parts = []
    for numbers in (np.flatnonzero(alive), np.flatnonzero(~alive)):
        parts += [numbers[i : i + rows] for i in range(0, len(numbers), rows)]
    return parts
