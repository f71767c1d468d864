from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from billhook.graph.patterns import parse_pattern
from billhook.graph.structure import Structure
from billhook.sparse.patterns._subsets import best_rows_and_columns, sizes
from billhook.sparse.patterns.block import Block
from tests.unit.sparse.patterns.made_weights import error, least_error, mask_of, projected, weight


@pytest.mark.parametrize("leave", [1, 2, 3])
def test_columns_inside_blocks_leave(leave: int) -> None:
    w = weight(4, 3, 1)
    units = [mask_of(w, slice(r, r + 2), c) for r in (0, 2) for c in range(3)]
    assert error(Block(2, 3), w, leave / 6) == pytest.approx(least_error(w, units, leave))


@pytest.mark.parametrize("leave", [1, 2, 3])
def test_rows_inside_blocks_leave(leave: int) -> None:
    w = weight(3, 4, 1)
    units = [mask_of(w, r, slice(c, c + 2)) for r in range(3) for c in (0, 2)]
    assert error(Block(3, 2, "rows"), w, leave / 6) == pytest.approx(least_error(w, units, leave))


def subsets(n: int) -> list[list[int]]:
    return [list(s) for s in chain.from_iterable(combinations(range(n), k) for k in range(n + 1))]


def best_crossing(block: Tensor, budget: int) -> float:
    """Return the most energy that a set of rows and a set of columns keep within the budget."""
    rows, columns = block.shape
    return max(
        float(block[r][:, c].square().sum())
        for r in subsets(rows)
        for c in subsets(columns)
        if len(r) * len(c) <= budget
    )


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("size", [(3, 4), (4, 3), (2, 5), (4, 4), (1, 4)])
def test_no_rows_and_columns_keep_more(size: tuple[int, int], sparsity: float) -> None:
    rows, columns = size
    w = weight(2 * rows, 2 * columns, 1)
    budget = max(1, int((1 - sparsity) * rows * columns + 1e-9))
    blocks = [b for row in w[:, :, 0].split(rows) for b in row.split(columns, 1)]
    kept = sum(best_crossing(b, budget) for b in blocks)
    pattern = Block(rows, columns, "both")
    z = projected(pattern, w, sparsity)
    assert float(z.square().sum()) == pytest.approx(kept)
    for b in (b for row in z[:, :, 0].split(rows) for b in row.split(columns, 1)):
        assert 1 <= int((b != 0).sum()) <= budget


def test_blocks_at_the_border_keep_their_share() -> None:
    w = weight(5, 7, 1)
    pattern = Block(3, 4, "both")
    z = projected(pattern, w, 0.5)
    kept = 0.0
    for row in w[:, :, 0].split(3):
        kept += sum(best_crossing(b, int(0.5 * b.numel())) for b in row.split(4, 1))
    assert float(z.square().sum()) == pytest.approx(kept)


def test_the_sparsity_is_reached() -> None:
    pattern, w = Block(8, 8, "both"), weight(32, 64, 1)
    for sparsity in (0.0, 0.5, 0.8, pattern.sparsities((32, 64, 1))[1]):
        s = Structure(pattern, (32, 64, 1), pattern.choose(w, sparsity))
        assert s.sparsity >= sparsity - 1e-9
    assert s.nonzeros == 4 * 8  # one weight per block


def test_larger_blocks_equal_an_independent_search() -> None:
    # Rows are tried in full; for each set the best columns are a sort.
    rng = np.random.default_rng(0)
    blocks = rng.random((20, 8, 8)) ** 3
    rows, columns = best_rows_and_columns(blocks, 20)
    for block, r, c in zip(blocks, rows, columns, strict=True):
        best = 0.0
        for chosen in subsets(8)[1:]:
            sums = np.sort(block[chosen].sum(0))[::-1]
            best = max(best, sums[: 20 // len(chosen)].sum())
        assert block[np.ix_(r, c)].sum() == pytest.approx(best)


def test_only_sizes_that_cannot_both_grow_are_tried() -> None:
    assert list(sizes(4, 4, 16)) == [(4, 4)]
    assert list(sizes(4, 4, 8)) == [(2, 4), (4, 2)]
    assert list(sizes(4, 4, 1)) == [(1, 1)]
    assert list(sizes(3, 4, 0)) == []


def test_only_linear_layers_have_such_blocks() -> None:
    assert Block().refusal((16, 16, 1)) is None
    assert "block_punched" in str(Block().refusal((16, 16, 9)))


def test_what_does_not_divide_is_padded_or_refused() -> None:
    assert Block(4, 4).refusal((6, 8, 1)) is None
    assert Block(4, 4, remainder="refuse").refusal((8, 8, 1)) is None
    assert Block(4, 4, remainder="refuse").refusal((6, 8, 1)) == (
        "blocks of 4×4 do not divide 6 outputs × 8 inputs"
    )


def test_too_many_sets_are_refused() -> None:
    assert "at most 12" in str(parse_pattern("block:axis=both,rows=16,columns=16").refusal((64, 64, 1)))
    assert parse_pattern("block:axis=both,rows=16,columns=16").refusal((8, 64, 1)) is None
    assert parse_pattern("block:axis=both,rows=4,columns=64").refusal((64, 64, 1)) is None
    assert parse_pattern("block:rows=64,columns=64").refusal((64, 64, 1)) is None


def test_zero_blocks_and_half_precision_do_no_harm() -> None:
    w = torch.zeros(16, 16, 1, dtype=torch.bfloat16)
    w[0, 0] = 1.0
    assert torch.equal(projected(Block(8, 8, "both"), w, 0.9), w)
