"""Matrices of 8-bit weights in blocks of rows, whose columns are quads: four channels at a shifted pixel.

Rows keep their order, because four neighbouring ones make a quad of the output. Rows of several groups may
share a block: what one group does not read has zero weights there. Depthwise convolutions are no exception.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from billhook.compile.ir import QUAD, Integers, Linear
from billhook.compile.products import Product
from billhook.errors import CompileError

Bytes = npt.NDArray[np.int8]


@dataclass(frozen=True)
class QuadMatrix:
    """Weights of 8 bits, by quads of what they multiply.

    Attributes:
        weights: [groups, rows per group, k].
        quads: [groups, k]: number of the quad that each column lies in, of all that `places` has.
        channel: [groups, k]: channel in its quad.
        places: [number of quads, 3]: plane of quads, down, right.
    """

    weights: Bytes
    quads: Integers
    channel: Integers
    places: Integers
    _local: dict[tuple[int, int], tuple[Integers, Integers]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of all groups."""
        return int(self.weights.shape[0] * self.weights.shape[1])

    def block(self, first: int, rows: int) -> tuple[Integers, Bytes]:
        """Return the quads of which rows from `first` on read something, and the weights [quads, rows, 4]."""
        per_group = self.weights.shape[1]
        last = min(first + rows, self.rows)
        low, high = first // per_group, (last - 1) // per_group + 1
        if (low, high) not in self._local:  # blocks inside one group share it
            each, where = np.unique(self.quads[low:high], return_inverse=True)
            self._local[low, high] = each.astype(np.int32), where.reshape(high - low, -1).astype(np.int32)
        found, places = self._local[low, high]
        made = np.zeros((len(found), rows, QUAD), np.int8)
        for g in range(low, high):
            begin, end = max(first, g * per_group), min(last, (g + 1) * per_group)
            own = self.weights[g, begin - g * per_group : end - g * per_group]
            made[places[g - low], begin - first : end - first, self.channel[g]] = own.T
        kept = made.any(axis=(1, 2))
        return found[kept], made[kept]


@dataclass(frozen=True)
class QuadBlocks:
    """A matrix in blocks of rows.

    Attributes:
        starts: First column of each block, and the end. [blocks + 1].
        columns: Numbers of quads, block after block; of one block if `shared`.
        weights: [sum of columns, rows, 4].
        shared: All blocks keep the same quads.
    """

    starts: npt.NDArray[np.uint32]
    columns: Integers
    weights: Bytes
    shared: bool

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.starts) - 1


def in_quad_blocks(matrix: QuadMatrix, rows: int) -> QuadBlocks:
    """Return the matrix in blocks of `rows` rows; the last one is filled up with zeros."""
    parts = [matrix.block(first, rows) for first in range(0, matrix.rows, rows)]
    columns, weights = [p[0] for p in parts], [p[1] for p in parts]
    starts = np.cumsum([0, *map(len, columns)]).astype(np.uint32)
    same = len(columns) > 1 and all(np.array_equal(c, columns[0]) for c in columns)
    return QuadBlocks(starts, columns[0] if same else np.concatenate(columns), np.concatenate(weights), same)


def quad_multiplications(op: Product, rows: int) -> int:
    """Return how many quads of weights would be multiplied with each pixel in blocks of `rows` rows."""
    matrix = product_matrix(op)
    return rows * sum(len(matrix.block(first, rows)[0]) for first in range(0, matrix.rows, rows))


def product_matrix(op: Product) -> QuadMatrix:
    """Return the weights of a convolution of a quantised value."""
    plane, down, right = op.taps[..., 0], op.taps[..., 1], op.taps[..., 2]
    places = np.stack((plane // QUAD, down, right), axis=-1).reshape(-1, 3)
    found, where = np.unique(places, axis=0, return_inverse=True)
    quads = where.reshape(plane.shape).astype(np.int32)
    return QuadMatrix(_whole_numbers(op), quads, plane % QUAD, found.astype(np.int32))


def linear_matrix(op: Linear) -> QuadMatrix:
    """Return the weights of a linear layer of a quantised value; places are plane, row and pixel."""
    x, outputs = op.inputs[0], op.weight.shape[0]
    c, y, i = np.indices((x.channels, x.height, x.width)).astype(np.int32)
    quads = ((c // QUAD) * x.height + y) * x.width + i
    places = np.indices((x.planes, x.height, x.width)).astype(np.int32).reshape(3, -1).T
    whole = _whole_numbers(op).reshape(1, outputs, -1)
    return QuadMatrix(whole, quads.reshape(1, -1), (c % QUAD).reshape(1, -1), places)


def _whole_numbers(op: Product | Linear) -> Bytes:
    """Return weights [.., outputs .., k] as multiples of the scale of their output.

    Raises:
        CompileError: if they are none, or beyond -127 to 127.
    """
    if op.weight_scale is None:
        raise CompileError(f"{op.kind} {op.output.name!r} reads 8 bits, but its weights have no scale")
    whole = op.weight / op.weight_scale.reshape(*op.weight.shape[:-1], 1)
    near = np.rint(whole)
    if not (np.abs(near) <= 127).all() or not (np.abs(whole - near) < 1e-2).all():
        raise CompileError(f"{op.kind} {op.output.name!r} has weights that are no multiples of its scale")
    made: Bytes = near.astype(np.int8)
    return made
