"""Blocked compressed storage: rows that keep the same columns share one list of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from billhook.errors import InputError
from billhook.graph.patterns import shape_of
from billhook.graph.structure import Structure, viewed

Integers = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Bcs:
    """A weight as blocks of rows, each with the columns that it keeps and, for each of them, a value per row.

    A column is one input at one kernel position, as in the matrix [outputs, inputs × positions]. A kernel
    that works on a block loads each input once for all its rows.

    Attributes:
        shape: Of the tensor.
        transposed: The tensor has its inputs first.
        rows: Of a block; the last one may have fewer, and zeros for those that it lacks.
        pointer: Where the columns of every block begin, and where those of the last end: [blocks + 1].
        columns: Of all blocks, one after the other, ascending in each: [kept].
        values: One row of numbers per column: [kept, rows].

    References:
        Gong et al., "Automatic Mapping of the Best-Suited DNN Pruning Schemes for Real-Time Mobile
        Acceleration", 2022. arXiv:2111.11581 (BCS; reconstructed).
    Differs from the source:
        Two levels of index instead of three: neighbouring rows of a block share their columns by the pattern,
        so that nothing is reordered.
    """

    shape: tuple[int, ...]
    transposed: bool
    rows: int
    pointer: Integers
    columns: Integers
    values: Tensor

    @property
    def index_count(self) -> int:
        """How many column indices are stored: Σ over blocks of the columns they keep."""
        return len(self.columns)


def encode(weight: Tensor, structure: Structure) -> Bcs:
    """Return a weight of this structure in blocked compressed storage.

    The rows of a block are those of the pattern; of a pattern without rows every row is a block of its own
    (CSR). Units that are several columns wide contribute each of their columns.

    Raises:
        InputError: if the weight has another shape, or rows of a block keep different columns.
    """
    if tuple(weight.shape) != structure.shape:
        raise InputError(f"a weight of shape {list(weight.shape)} for a structure of {list(structure.shape)}")
    view = viewed(weight.detach().cpu(), transposed=structure.transposed)
    outputs, inputs, positions = shape_of(view)
    matrix = view.reshape(outputs, -1)
    mask = viewed(structure.mask, transposed=structure.transposed).reshape(outputs, -1)
    rows = _rows(structure)
    firsts = mask[::rows]
    if not torch.equal(firsts.repeat_interleave(rows, 0)[:outputs], mask):
        raise InputError(
            f"rows of a block of {rows} keep different columns under the pattern {str(structure.pattern)!r}; "
            "blocked compressed storage needs one such as block_punched"
        )
    blocks, columns = (a.astype(np.int32) for a in np.nonzero(firsts.numpy()))
    padded = torch.zeros(len(firsts) * rows, inputs * positions, dtype=matrix.dtype)
    padded[:outputs] = matrix
    values = padded.reshape(len(firsts), rows, -1).transpose(1, 2)[firsts]
    pointer = np.searchsorted(blocks, np.arange(len(firsts) + 1)).astype(np.int32)
    return Bcs(structure.shape, structure.transposed, rows, pointer, columns, values)


def decode(stored: Bcs) -> Tensor:
    """Return the weight that `encode` took apart, bit by bit the same."""
    outputs, inputs, kernel = _view(stored)
    blocks = len(stored.pointer) - 1
    matrix = torch.zeros(blocks, inputs * prod(kernel), stored.rows, dtype=stored.values.dtype)
    matrix[_block_of(stored), torch.from_numpy(stored.columns.astype(np.int64))] = stored.values
    weight = matrix.transpose(1, 2).reshape(blocks * stored.rows, inputs, *kernel)[:outputs]
    return weight.transpose(0, 1).contiguous() if stored.transposed else weight


def matvec(stored: Bcs, x: Tensor) -> Tensor:
    """Return the product of the matrix [outputs, inputs × positions] with `x` [inputs × positions, …].

    Each entry of `x` is read once per block: the reference for kernels, not a fast one itself.
    """
    loaded = x[torch.from_numpy(stored.columns.astype(np.int64))]
    rest = x.shape[1:]
    products = stored.values.reshape(-1, stored.rows, *(1 for _ in rest)) * loaded[:, None]
    sums = torch.zeros(len(stored.pointer) - 1, stored.rows, *rest, dtype=products.dtype)
    return sums.index_add(0, _block_of(stored), products).reshape(-1, *rest)[: _view(stored)[0]]


def _rows(structure: Structure) -> int:
    """Return how many rows of a block keep the same columns by the pattern; 1 if it has no such blocks."""
    block = getattr(structure.pattern, "block", None)
    if block is None or "rows" in structure.parts:  # blocks that lose rows of their own share nothing
        return 1
    view = viewed(structure.mask, transposed=structure.transposed)
    return int(block(shape_of(view))[0])


def _view(stored: Bcs) -> tuple[int, int, tuple[int, ...]]:
    first, second, *kernel = stored.shape
    return (second, first, tuple(kernel)) if stored.transposed else (first, second, tuple(kernel))


def _block_of(stored: Bcs) -> Tensor:
    """Return the block of every column."""
    return torch.from_numpy(np.repeat(np.arange(len(stored.pointer) - 1), np.diff(stored.pointer)))
