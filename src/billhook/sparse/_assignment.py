"""The best balanced assignment of many things to few blocks: a transportation problem, solved exactly."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_PRICE_STEPS = 30


def assign(profit: Floats, sizes: Ints) -> Ints:
    """Return the block of every row that makes the sum of profits largest, with `sizes[b]` rows in block b.

    `scipy.optimize.linear_sum_assignment` solves the same with a slot per row, in O(rows³). Here a row goes
    to its best block first; then rows move from blocks that are too full along the cheapest chains of blocks
    to those with room, one row per link (successive shortest paths). Every assignment on the way is the best
    one for the sizes it has, hence so is the last. A chain costs O(blocks³ + rows), and prices on the blocks
    (which change no comparison between assignments of equal sizes) leave few chains to find.

    Args:
        profit: Of putting row r into block b; shape [rows, blocks].
        sizes: Rows of every block; they add up to the number of rows.
    """
    scale = float(np.abs(profit).max()) or 1.0
    profit = profit / scale
    blocks = len(sizes)
    block: Ints = (profit - _prices(profit, sizes)).argmax(1)
    excess = np.bincount(block, minlength=blocks) - sizes
    cost = np.full((blocks, blocks), np.inf)
    mover = np.zeros((blocks, blocks), dtype=np.int64)
    for b in range(blocks):
        _links(profit, block, b, cost, mover)
    while (excess > 0).any():
        chain = _cheapest_chain(cost, excess)
        rows = [int(mover[a, b]) for a, b in pairwise(chain)]
        block[rows] = chain[1:]
        excess[chain[0]] -= 1
        excess[chain[-1]] += 1
        for b in chain:
            _links(profit, block, b, cost, mover)
    return block


def _prices(profit: Floats, sizes: Ints) -> Floats:
    """Return prices of the blocks under which the best blocks of all rows are of about the right sizes."""
    blocks = len(sizes)
    price, best, fewest = np.zeros(blocks), np.zeros(blocks), np.inf
    ranked = np.partition(profit, blocks - 2, axis=1)[:, -2:]
    step = float((ranked[:, 1] - ranked[:, 0]).mean())  # what it costs a row to take its second best
    for i in range(_PRICE_STEPS):
        excess = np.bincount((profit - price).argmax(1), minlength=blocks) - sizes
        wrong = np.abs(excess).sum()
        if wrong < fewest:
            best, fewest = price.copy(), wrong
        if not wrong:
            break
        price += step / (1 + i / 4) * excess / np.maximum(sizes, 1)
    return best


def _links(profit: Floats, block: Ints, b: int, cost: Floats, mover: Ints) -> None:
    """Bring up to date what it costs, and which row it is, to move one row out of block `b` to each other."""
    rows = np.flatnonzero(block == b)
    if not len(rows):
        cost[b] = np.inf
        return
    loss = profit[rows, b][:, None] - profit[rows]
    least = loss.argmin(0)
    mover[b] = rows[least]
    cost[b] = loss[least, np.arange(len(cost))]
    cost[b, b] = np.inf


def _cheapest_chain(cost: Floats, excess: Ints) -> list[int]:
    """Return the blocks of the cheapest chain from one that is too full to one with room (Bellman–Ford)."""
    blocks = len(cost)
    distance = np.where(excess > 0, 0.0, np.inf)
    before = np.full(blocks, -1)
    for _ in range(blocks - 1):
        through = distance[:, None] + cost
        last = through.argmin(0)
        shorter = through[last, np.arange(blocks)]
        better = shorter < distance - 1e-12  # a cycle that gains only by rounding must not be gone round
        if not better.any():
            break
        distance, before = np.where(better, shorter, distance), np.where(better, last, before)
    chain = [int(np.where(excess < 0, distance, np.inf).argmin())]
    while before[chain[-1]] >= 0:
        chain.append(int(before[chain[-1]]))
    return chain[::-1]
