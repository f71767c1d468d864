"""Patterns whose units are disjoint blocks of a weight: the best structure is that of the largest blocks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from billhook.graph.patterns import Part, Parts, Pattern, Shape, ordered, shape_of


@dataclass(frozen=True)
class Blocks(Pattern):
    """Blocks [rows, columns, positions] side by side; those at the borders may be smaller.

    Blocks share no weight, so the Euclidean projection onto "at most k blocks differ from zero" keeps the k
    blocks of the largest L2 norm.
    """

    @abstractmethod
    def block(self, shape: Shape) -> Shape:
        """Return the size of a block of a weight of this shape."""

    def refusal(self, shape: Shape, groups: int = 1) -> str | None:
        """Return None: blocks at the borders may be smaller."""
        return None

    def layout(self, shape: Shape) -> Mapping[str, Part]:
        """Return one flag per block."""
        return {"keep": Part((prod(_counts(shape, self.block(shape))),))}

    def units(self, energy: Tensor) -> Tensor:
        """Return the energy of every block."""
        return block_sums(energy, self.block(shape_of(energy)))

    def sparsities(self, shape: Shape) -> tuple[float, float]:
        """Return no zeros at all, and all but one block."""
        return 0.0, 1 - 1 / prod(_counts(shape, self.block(shape)))

    def units_for(self, energy: Tensor, weight_sparsity: float) -> float:
        """Return which fraction of the blocks must leave; those at the border bring fewer zeros."""
        return fraction_of_blocks(energy, self.block(shape_of(energy)), weight_sparsity)

    def select(self, energy: Tensor, sparsity: float) -> Parts:
        """Return the structure that keeps the blocks of the largest energy."""
        return {"keep": keep_largest(self.units(energy), sparsity)}

    def mask(self, parts: Parts, shape: Shape) -> Tensor:
        """Return True in the blocks that stay."""
        return spread(torch.from_numpy(parts["keep"]), shape, self.block(shape))


def keep_largest(values: Tensor, sparsity: float) -> npt.NDArray[np.bool_]:
    """Return which ⌈(1 - sparsity) n⌉ of n values are the largest; of equal ones, the first stay.

    At least one stays.
    """
    flat = ordered(values.detach().reshape(-1).cpu()).numpy()
    count = max(1, min(len(flat), ceil((1 - sparsity) * len(flat) - 1e-9)))
    if count == len(flat):
        return np.ones(len(flat), dtype=bool)
    threshold = np.partition(flat, len(flat) - count)[len(flat) - count]
    keep: npt.NDArray[np.bool_] = flat > threshold
    equal = np.flatnonzero(flat == threshold)
    keep[equal[: count - int(keep.sum())]] = True
    return keep


def fraction_of_blocks(energy: Tensor, block: Shape, weight_sparsity: float) -> float:
    """Return the fraction of blocks to take away, the smallest first, for a fraction of zeros."""
    shape = shape_of(energy)
    if not any(s % b for s, b in zip(shape, block, strict=True)):
        return weight_sparsity
    order = np.argsort(block_sums(energy, block).detach().float().cpu().numpy(), kind="stable")
    sizes = block_sums(torch.ones(shape), block).numpy()[order]
    zeros = np.cumsum(sizes)
    leaving = int(np.searchsorted(zeros, weight_sparsity * prod(shape) - 0.5 * sizes.max()))
    return leaving / len(order)


def block_sums(values: Tensor, block: Shape) -> Tensor:
    """Return the sum of `values` over every block: [blocks]."""
    counts = _counts(shape_of(values), block)
    if block == (1, 1, 1):
        return values.reshape(-1)
    padded = _padded(values, block)
    (a, b, c), (rows, columns, positions) = counts, block
    return padded.reshape(a, rows, b, columns, c, positions).sum((1, 3, 5)).reshape(-1)


def spread(values: Tensor, shape: Shape, block: Shape) -> Tensor:
    """Return a value per block as a value per weight: from [blocks] to `shape`."""
    counts = _counts(shape, block)
    whole = values.reshape(counts)
    for axis, size in enumerate(block):
        if size > 1:
            whole = whole.repeat_interleave(size, axis)
    return whole[: shape[0], : shape[1], : shape[2]]


def blocks_of(values: Tensor, block: Shape) -> Tensor:
    """Return the weights of every block, zeros where a block reaches over the border: [blocks, weights]."""
    (a, b, c), (rows, columns, positions) = _counts(shape_of(values), block), block
    parted = _padded(values, block).reshape(a, rows, b, columns, c, positions)
    return parted.permute(0, 2, 4, 1, 3, 5).reshape(a * b * c, rows * columns * positions)


def unblocked(blocks: Tensor, shape: Shape, block: Shape) -> Tensor:
    """Return what `blocks_of` took apart, without the padding."""
    (a, b, c), (rows, columns, positions) = _counts(shape, block), block
    whole = blocks.reshape(a, b, c, rows, columns, positions).permute(0, 3, 1, 4, 2, 5)
    return whole.reshape(a * rows, b * columns, c * positions)[: shape[0], : shape[1], : shape[2]]


def _counts(shape: Shape, block: Shape) -> Shape:
    outputs, inputs, positions = (-(-s // b) for s, b in zip(shape, block, strict=True))
    return outputs, inputs, positions


def _padded(values: Tensor, block: Shape) -> Tensor:
    missing = [-s % b for s, b in zip(values.shape, block, strict=True)]
    if not any(missing):
        return values
    return functional.pad(values, (0, missing[2], 0, missing[1], 0, missing[0]))
