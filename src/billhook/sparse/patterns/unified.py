"""Unified: all weights of a block have the same magnitude and signs of their own, or the block is pruned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import torch
from torch import Tensor

from billhook.graph.patterns import Array, Part, Parts, Pattern, Shape, ordered, shape_of
from billhook.options import Number, option
from billhook.registry import Info
from billhook.sparse.patterns._blocks import (
    block_sums,
    blocks_of,
    fraction_of_blocks,
    keep_largest,
    spread,
    unblocked,
)
from billhook.sparse.patterns._borders import misfit, remainder_option
from billhook.sparse.patterns._roles import FREE, PRUNED, UNIFIED, best_roles

INFO = Info(
    "blocks whose weights share one magnitude and keep their signs, or are zero",
    "Lin et al., Efficient Micro-Structured Weight Unification and Pruning, 2021, arXiv:2106.08301",
    notes="a unified block is stored as one number and a bit per weight",
)


@dataclass(frozen=True)
class Unified(Pattern):
    """Blocks of `rows` outputs × `columns` inputs at one kernel position are free, unified or pruned.

    The weights of a unified block are v · sign(w). In the nearest such block, v = mean|w|, and the squared
    error is Σw² - n·v². `choose` gives the roles with the least squared error for a number of
    blocks to prune and a number to unify, exactly; a pruned block is a unified one with v = 0.

    References:
        Lin et al., "Efficient Micro-Structured Weight Unification and Pruning for Neural Network
        Compression", 2021. arXiv:2106.08301 (reconstructed).
    Differs from the source:
        Which blocks are pruned and which unified is decided together instead of one after the other.
    """

    rows: int = option(4, Number(1, integer=True), "outputs of a block")
    columns: int = option(4, Number(1, integer=True), "inputs of a block")
    unify: float = option(1.0, Number(0, 1), "fraction of the blocks that stay which share one magnitude")
    remainder: str = remainder_option()

    def block(self, shape: Shape) -> Shape:
        """Return the block, at most as large as the weight."""
        return min(self.rows, shape[0]), min(self.columns, shape[1]), 1

    def refusal(self, shape: Shape, groups: int = 1) -> str | None:
        """Return why the blocks do not fit: they do not divide the layer, or would reach over groups."""
        rows, columns, _ = self.block(shape)
        return misfit(rows, columns, shape, groups, self.remainder)

    def layout(self, shape: Shape) -> Mapping[str, Part]:
        """Return the role of every block: 0 free, 1 unified, 2 pruned."""
        return {"role": Part((prod(-(-s // b) for s, b in zip(shape, self.block(shape), strict=True)),), 3)}

    def units_for(self, energy: Tensor, weight_sparsity: float) -> float:
        """Return which fraction of the blocks must be pruned for a fraction of zeros."""
        return fraction_of_blocks(energy, self.block(shape_of(energy)), weight_sparsity)

    def select(self, energy: Tensor, sparsity: float) -> Parts:
        """Return the structure that prunes the blocks of the least energy and unifies those that follow."""
        sums = self.units(energy)
        stays = keep_largest(sums, sparsity)
        largest = np.argsort(-ordered(sums).detach().cpu().numpy(), kind="stable")
        role = np.where(stays, UNIFIED, PRUNED).astype(np.uint8)
        staying = largest[stays[largest]]
        role[staying[: len(staying) - self._unified(len(staying))]] = FREE
        return {"role": role}

    def choose(self, weight: Tensor, sparsity: float) -> Parts:
        """Return the roles that change the weights least."""
        weight = ordered(weight.detach().cpu().abs()).double().clamp(max=1e100)  # has a square
        block = self.block(shape_of(weight))
        pruning = block_sums(weight.square(), block).numpy()
        shared = block_sums(weight, block).square().numpy() / self._sizes(shape_of(weight))
        staying = max(1, min(len(pruning), ceil((1 - sparsity) * len(pruning) - 1e-9)))
        roles = best_roles(pruning, shared, len(pruning) - staying, self._unified(staying))
        return {"role": roles}

    def mask(self, parts: Parts, shape: Shape) -> Tensor:
        """Return True in the blocks that stay."""
        return self._where(parts, shape, parts["role"] != PRUNED)

    def units(self, energy: Tensor) -> Tensor:
        """Return the energy of every block."""
        return block_sums(energy, self.block(shape_of(energy)))

    def anchor(self, weight: Tensor, parts: Parts) -> Tensor:
        """Return 0 in a pruned block, the signs of a unified one (that of 0 is +), 1 in a free one."""
        shape = shape_of(weight)
        flip = self._where(parts, shape, parts["role"] == UNIFIED).to(weight.device) & (weight < 0)
        return torch.where(flip, -1, 1).to(weight) * self.mask(parts, shape).to(weight)

    def hold(self, values: Tensor, parts: Parts, anchor: Tensor) -> Tensor:
        """Return the mean of sign · value, times the sign, in unified blocks; zero in pruned ones.

        That mean is below zero where training would turn a whole block around: all its signs change, its
        magnitudes are equal nevertheless.
        """
        shape = shape_of(values)
        block = self.block(shape)
        held = torch.where(anchor == 0, 0, values)
        unified = torch.from_numpy(np.flatnonzero(parts["role"] == UNIFIED)).to(values.device)
        blocks, signs = blocks_of(held, block), blocks_of(anchor, block)[unified]
        signed = (blocks[unified] * signs).to(torch.promote_types(values.dtype, torch.float32))
        # Differences to one of them: blocks that are unified already come back bit by bit.
        first = signed[:, :1]
        count = torch.from_numpy(self._sizes(shape)).to(signed)[unified, None]
        mean = first + torch.where(signs == 0, 0, signed - first).sum(1, keepdim=True) / count
        blocks[unified] = mean.to(values) * signs
        return unblocked(blocks, shape, block)

    def values(self, parts: Parts, shape: Shape) -> int:
        """Return one number for each unified block and one for each free weight."""
        free = self._sizes(shape)[parts["role"] == FREE].sum()
        return int(free) + int((parts["role"] == UNIFIED).sum())

    def encode(self, weight: Tensor, parts: Parts) -> dict[str, Tensor]:
        """Return the magnitudes of unified blocks, the signs in them as bits, and the free weights."""
        shape = shape_of(weight)
        weight = weight.detach().cpu()
        block = self.block(shape)
        unified = self._where(parts, shape, parts["role"] == UNIFIED)
        firsts = blocks_of(weight, block)[torch.from_numpy(parts["role"] == UNIFIED), 0]
        return {
            "magnitudes": firsts.abs(),
            "signs": torch.from_numpy(np.packbits(torch.signbit(weight[unified]).numpy())),
            "values": weight[self._where(parts, shape, parts["role"] == FREE)],
        }

    def decode(self, numbers: Mapping[str, Tensor], parts: Parts, shape: Shape) -> Tensor:
        """Return the tensor that `encode` took apart; raises `ValueError`."""
        role = parts["role"]
        unified, free = (self._where(parts, shape, role == r) for r in (UNIFIED, FREE))
        magnitudes, signs, values = (numbers.get(n) for n in ("magnitudes", "signs", "values"))
        if magnitudes is None or signs is None or values is None:
            raise ValueError(f"numbers {sorted(numbers)}, expected magnitudes, signs and values")
        count = int(unified.sum())
        sizes = (int((role == UNIFIED).sum()), -(-count // 8), int(free.sum()))
        if (magnitudes.shape, signs.shape, values.shape) != tuple((n,) for n in sizes):
            found = (magnitudes.numel(), signs.numel(), values.numel())
            raise ValueError(f"{found} magnitudes, bytes of signs and values where {sizes} are needed")
        if signs.dtype != torch.uint8 or magnitudes.dtype != values.dtype:
            raise ValueError(f"signs of type {signs.dtype}, {magnitudes.dtype} beside {values.dtype}")
        weight = torch.zeros(shape, dtype=values.dtype)
        weight[free] = values
        by_block = torch.zeros(len(role), dtype=values.dtype)
        by_block[torch.from_numpy(role == UNIFIED)] = magnitudes
        shared = spread(by_block, shape, self.block(shape))[unified]
        negative = torch.from_numpy(np.unpackbits(signs.numpy(), count=count).astype(bool))
        weight[unified] = torch.where(negative, -shared, shared)
        return weight

    def _unified(self, staying: int) -> int:
        return ceil(self.unify * staying - 1e-9)

    def _where(self, parts: Parts, shape: Shape, flags: Array) -> Tensor:
        """Return a flag per block as a flag per weight."""
        return spread(torch.from_numpy(flags), shape, self.block(shape))

    def _sizes(self, shape: Shape) -> Array:
        """Return how many weights of the tensor every block has."""
        per_axis = []
        for size, block in zip(shape, self.block(shape), strict=True):
            counts = np.full(-(-size // block), block, dtype=np.int64)
            counts[-1] = size - block * (len(counts) - 1)
            per_axis.append(counts)
        rows, columns, positions = per_axis
        sizes: Array = rows[:, None, None] * columns[:, None] * positions
        return sizes.reshape(-1)


ENTRY = Unified
