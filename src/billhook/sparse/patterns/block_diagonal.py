"""Block-diagonal after pivoting: outputs and inputs fall into blocks, and only those of one are joined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from billhook.graph.patterns import Array, Part, Parts, Pattern, Shape
from billhook.options import Number, option
from billhook.registry import Info
from billhook.sparse.pivoting import block_sizes, pivot

INFO = Info(
    "outputs and inputs in blocks, no weight between two blocks: a grouped layer in another order",
    "Sredojevic et al., Structured DNN Pruning via Matrix Pivoting, 2017, arXiv:1712.01084 (reconstructed)",
    notes="the sparsity is always 1 - 1/blocks; fold_pivots makes plain grouped layers of it",
)


@dataclass(frozen=True)
class BlockDiagonal(Pattern):
    """A weight may differ from zero only where output and input are of one block; kernels stay dense.

    With its outputs and inputs in the order of their blocks, the weight is block-diagonal: a convolution in
    `blocks` groups. The sparsity is fixed by the number of blocks, like that of N:M, and `select` does not
    look at the one it is asked for; `stages` leads there step by step.

    The projection is a heuristic: which partitions keep the most energy is NP-hard (see `sparse.pivoting`).
    Two such layers in a row with the same partition make two networks side by side that never meet.

    References:
        Sredojevic et al., "Structured Deep Neural Network Pruning via Matrix Pivoting", 2017.
        arXiv:1712.01084.
    Reconstructed:
        Only the abstract could be read. Importance of an output and an input, the partitions and how they
        are found are ours.
    """

    blocks: int = option(
        4, Number(2, 64, integer=True), "blocks on the diagonal; 1/blocks of the weights stay"
    )
    restarts: int = option(4, Number(1, 1000, integer=True), "starts of the search for the partitions")
    rounds: int = option(20, Number(1, 1000, integer=True), "rounds of every start, at most")
    seed: int = option(0, Number(0, 2**31 - 1, integer=True), "seed of the random starts")

    def refusal(self, shape: Shape, groups: int = 1) -> str | None:
        """Return why the blocks do not fit: there are groups already, or not one row or column per block."""
        if groups > 1:
            return f"a convolution in {groups} groups is block-diagonal already"
        outputs, inputs, _ = shape
        if min(outputs, inputs) < self.blocks:
            return f"{self.blocks} blocks in {outputs} outputs × {inputs} inputs; one of each is the least"
        return None

    def layout(self, shape: Shape) -> Mapping[str, Part]:
        """Return the block of every output and of every input."""
        outputs, inputs, _ = shape
        return {"row_block": Part((outputs,), self.blocks), "column_block": Part((inputs,), self.blocks)}

    def flaw(self, parts: Parts, shape: Shape) -> str | None:
        """Return which blocks are not of the size that `block_sizes` gives them."""
        for what, part, count in (("outputs", "row_block", shape[0]), ("inputs", "column_block", shape[1])):
            found = np.bincount(parts[part].astype(np.int64), minlength=self.blocks)
            wanted = block_sizes(count, self.blocks)
            if not np.array_equal(found, wanted):
                return f"its blocks have {found.tolist()} {what}, expected {wanted.tolist()}"
        return None

    def select(self, energy: Tensor, sparsity: float) -> Parts:
        """Return the partitions in `blocks` blocks that keep the most energy of those that were found."""
        importance = energy.detach().cpu().double().sum(2).numpy()
        found = pivot(importance, self.blocks, restarts=self.restarts, rounds=self.rounds, seed=self.seed)
        return {"row_block": found.rows.astype(np.uint8), "column_block": found.columns.astype(np.uint8)}

    def mask(self, parts: Parts, shape: Shape) -> Tensor:
        """Return True where output and input share a block."""
        rows, columns = (_numbers(parts[name]) for name in ("row_block", "column_block"))
        return (rows[:, None] == columns[None, :])[:, :, None].repeat(1, 1, shape[2])

    def units(self, energy: Tensor) -> Tensor:
        """Return the energy of every pair of an output and an input."""
        return energy.sum(2).reshape(-1)

    def sparsities(self, shape: Shape) -> tuple[float, float]:
        """Return the only weight sparsity there is, 1 - 1/blocks where the blocks divide the weight."""
        outputs, inputs, _ = shape
        kept = int(block_sizes(outputs, self.blocks) @ block_sizes(inputs, self.blocks))
        return (1 - kept / (outputs * inputs),) * 2

    def stages(self) -> list[BlockDiagonal]:
        """Return the patterns for pruning in stages: 2, then 4, … blocks, each a multiple of the one before.

        Network and plan go through them with training in between; what a stage has pruned weighs nothing in
        the next one, whose blocks hence lie mostly inside the old ones.
        """
        steps, left = [1], self.blocks
        for prime in range(2, left + 1):
            while left % prime == 0:
                steps.append(steps[-1] * prime)
                left //= prime
        return [replace(self, blocks=step) for step in steps[1:]]

    def partly(self, progress: float) -> BlockDiagonal | None:
        """Return the last stage that has no more zeros than the progress allows."""
        zeros = progress * (1 - 1 / self.blocks) + 1e-9
        return next((s for s in reversed(self.stages()) if 1 - 1 / s.blocks <= zeros), None)


def _numbers(blocks: Array) -> Tensor:
    return torch.from_numpy(np.asarray(blocks).astype(np.int64))


ENTRY = BlockDiagonal
