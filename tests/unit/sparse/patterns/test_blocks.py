"""Disjoint blocks: who stays, and what of them reaches over the border."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from billhook.sparse.patterns._blocks import block_sums, blocks_of, keep_largest, spread, unblocked
from tests.unit.sparse.patterns.made_weights import weight


@pytest.mark.parametrize(
    ("values", "sparsity", "stay"),
    [
        ([3, 1, 2, 4], 0.5, "1001"),
        ([1, 1, 1, 1], 0.5, "1100"),
        ([0, 2, 2, 2, 1], 0.6, "01100"),
        ([1, 2, 3], 0.5, "011"),  # ⌈1.5⌉ stay
        ([1, 2, 3], 0.0, "111"),
        ([0, 0, 0], 0.99, "100"),  # one stays
        ([5, 4, 3, 2, 1, 0, 0, 0, 0, 0], 0.7, "1110000000"),  # (1 - 0.7) · 10 is a little above 3 in binary
    ],
)
def test_the_largest_stay_and_of_equal_ones_the_first(values: list[int], sparsity: float, stay: str) -> None:
    keep = keep_largest(torch.tensor(values).float(), sparsity)
    assert "".join("1" if k else "0" for k in keep) == stay


def test_as_many_stay_as_the_sparsity_says() -> None:
    values = weight(1000).square()
    for sparsity in np.linspace(0, 0.999, 50):
        assert keep_largest(values, sparsity).sum() == max(1, np.ceil(round((1 - sparsity) * 1000, 6)))


@pytest.mark.parametrize("block", [(1, 1, 1), (2, 3, 1), (4, 1, 3), (5, 7, 9), (3, 4, 2)])
def test_blocks_come_apart_and_together(block: tuple[int, int, int]) -> None:
    w = weight(5, 7, 9)
    apart = blocks_of(w, block)
    assert torch.equal(unblocked(apart, (5, 7, 9), block), w)
    torch.testing.assert_close(block_sums(w, block), apart.sum(1))
    number = spread(torch.arange(len(apart)), (5, 7, 9), block)
    for i, values in enumerate(apart):
        assert torch.equal(values[values != 0].sort().values, w[number == i].sort().values)
