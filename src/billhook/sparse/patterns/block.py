"""Block: rows or columns inside the blocks of a linear layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from billhook.graph.patterns import Part, Parts, Shape, ordered, shape_of
from billhook.options import Number, OneOf, option
from billhook.registry import Info
from billhook.sparse.patterns._blocks import Blocks, unblocked
from billhook.sparse.patterns._borders import misfit, remainder_option
from billhook.sparse.patterns._subsets import MOST_SUBSETS_OF, best_rows_and_columns

INFO = Info(
    "rows or columns inside each block of rows × columns of a linear layer",
    "Gong et al., Automatic Mapping of the Best-Suited DNN Pruning Schemes, TODAES 2022, arXiv:2111.11581",
    notes="axis=columns with 8 rows is what fast kernels like; axis=both keeps as much in every block",
)


@dataclass(frozen=True)
class Block(Blocks):
    """Blocks of `rows` outputs × `columns` inputs, each of which loses rows or columns of its own.

    With `axis` "columns" (or "rows"), units are the columns (rows) inside a block, chosen over the whole
    layer: disjoint, so that the largest L2 norms are the exact Euclidean projection. With "both", a block
    keeps the weights where a set of its rows meets a set of its columns, at most ⌊(1 - s) · p · q⌋ of p × q;
    every block keeps as much, so that a kernel's work is balanced. That projection is exact too: all sets of
    the side with fewer of them are tried.

    References:
        Gong et al., "Automatic Mapping of the Best-Suited DNN Pruning Schemes for Real-Time Mobile
        Acceleration", 2022. arXiv:2111.11581 (block-based; thresholds and code are reconstructed).
    Differs from the source:
        Rows and columns of "both" are chosen together instead of one after the other, and what is fixed is
        the number of weights, not those of rows and columns.
    """

    rows: int = option(8, Number(1, integer=True), "outputs of a block")
    columns: int = option(8, Number(1, integer=True), "inputs of a block")
    axis: str = option("columns", OneOf("columns", "rows", "both"), "what leaves inside a block")
    remainder: str = remainder_option()

    def block(self, shape: Shape) -> Shape:
        """Return what leaves on its own: a column or a row of a block; for "both" the block itself."""
        rows, columns = self._size(shape)
        return (1 if self.axis == "rows" else rows), (1 if self.axis == "columns" else columns), 1

    def refusal(self, shape: Shape, groups: int = 1) -> str | None:
        """Return why the pattern does not fit: no linear layer, or blocks that do not divide it."""
        if shape[2] != 1:
            return f"blocks are for linear layers; kernels of {shape[2]} positions need block_punched"
        rows, columns = self._size(shape)
        if self.axis == "both" and min(rows, columns) > MOST_SUBSETS_OF:
            return (
                f"blocks of {rows}×{columns} have too many sets of rows and columns to try; one side must be "
                f"at most {MOST_SUBSETS_OF}"
            )
        return misfit(rows, columns, shape, groups, self.remainder)

    def layout(self, shape: Shape) -> Mapping[str, Part]:
        """Return one flag per unit; for "both" one per row and per column of every block."""
        if self.axis != "both":
            return super().layout(shape)
        rows, columns, _ = self.block(shape)
        blocks = prod(self._counts(shape))
        return {"rows": Part((blocks, rows)), "columns": Part((blocks, columns))}

    def select(self, energy: Tensor, sparsity: float) -> Parts:
        """Return the structure that keeps the most energy."""
        if self.axis != "both":
            return super().select(energy, sparsity)
        return self._balanced(energy, sparsity)

    def mask(self, parts: Parts, shape: Shape) -> Tensor:
        """Return True where a weight stays."""
        if self.axis != "both":
            return super().mask(parts, shape)
        crossings = parts["rows"][:, :, None] & parts["columns"][:, None, :]
        return unblocked(torch.from_numpy(crossings.reshape(len(crossings), -1)), shape, self.block(shape))

    def units(self, energy: Tensor) -> Tensor:
        """Return the energy of every unit.

        For "both" it is that of every weight: every block loses as much, and single weights only tell how the
        zeros may be shared out between layers.
        """
        return super().units(energy) if self.axis != "both" else energy.reshape(-1)

    def sparsities(self, shape: Shape) -> tuple[float, float]:
        """Return the smallest and the largest weight sparsity; with "both", a weight per block stays."""
        return super().sparsities(shape) if self.axis != "both" else (0.0, 1 - 1 / prod(self.block(shape)))

    def _size(self, shape: Shape) -> tuple[int, int]:
        return min(self.rows, shape[0]), min(self.columns, shape[1])

    def _counts(self, shape: Shape) -> tuple[int, int]:
        rows, columns = self._size(shape)
        return -(-shape[0] // rows), -(-shape[1] // columns)

    def _balanced(self, energy: Tensor, sparsity: float) -> Parts:
        """Solve all blocks of one size together: those inside, at the borders, and the one at the corner."""
        (rows, columns), (down, across) = self._size(shape_of(energy)), self._counts(shape_of(energy))
        matrix = ordered(energy).detach().cpu().numpy()[:, :, 0]
        keep_rows = np.zeros((down, across, rows), dtype=bool)
        keep_columns = np.zeros((down, across, columns), dtype=bool)
        for r, i in _spans(len(matrix), rows):
            for c, j in _spans(matrix.shape[1], columns):
                part = matrix[i.start * rows : i.stop * rows, j.start * columns : j.stop * columns]
                blocks = part.reshape(i.stop - i.start, r, j.stop - j.start, c).swapaxes(1, 2)
                budget = int((1 - sparsity) * r * c + 1e-9)
                whole = (r, c) == (rows, columns)
                best = best_rows_and_columns(blocks.reshape(-1, r, c), max(1, budget) if whole else budget)
                keep_rows[i, j, :r] = best[0].reshape(*blocks.shape[:2], r)
                keep_columns[i, j, :c] = best[1].reshape(*blocks.shape[:2], c)
        return {"rows": keep_rows.reshape(-1, rows), "columns": keep_columns.reshape(-1, columns)}


def _spans(size: int, block: int) -> Iterator[tuple[int, slice]]:
    """Yield the sizes of blocks along an axis, and which blocks have them: whole ones, then what is left."""
    whole, rest = divmod(size, block)
    yield block, slice(0, whole)
    if rest:
        yield rest, slice(whole, whole + 1)


ENTRY = Block
