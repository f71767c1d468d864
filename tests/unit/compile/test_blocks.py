"""Matrices in blocks of rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billhook.compile.blocks import Blocks, in_blocks, multiplications
from billhook.compile.ir import Floats


def matrix_of(blocks: Blocks, outputs: int, inputs: int) -> Floats:
    """The matrix that a product with these blocks would multiply with."""
    made = np.zeros((outputs, inputs), np.float32)
    for b in range(blocks.blocks):
        first, end = (int(n) for n in blocks.starts[b : b + 2])
        columns = blocks.columns if blocks.shared else blocks.columns[first:end]
        for place, row in enumerate(blocks.order[b * blocks.rows : (b + 1) * blocks.rows]):
            if row >= 0:
                made[row, columns] = blocks.weights[first:end, place]
    return made


@given(
    rows=st.sampled_from([1, 4, 8, 16]),
    outputs=st.integers(1, 20),
    groups=st.integers(1, 3),
    density=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_nothing_is_lost(rows: int, outputs: int, groups: int, density: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [
        (rng.standard_normal((outputs, 6)) * (rng.random((outputs, 6)) < density)).astype(np.float32)
        for _ in range(groups)
    ]
    blocks = in_blocks(parts, rows)
    whole = np.zeros((groups * outputs, groups * 6), np.float32)
    for g, part in enumerate(parts):
        whole[g * outputs : (g + 1) * outputs, g * 6 : (g + 1) * 6] = part
    assert np.array_equal(matrix_of(blocks, *whole.shape), whole)
    assert sorted(blocks.order[blocks.order >= 0]) == list(range(groups * outputs))
    assert multiplications(parts, rows) == blocks.weights.size


def test_only_columns_that_some_row_needs_are_multiplied() -> None:
    matrix = np.zeros((8, 10), np.float32)
    matrix[:4, 3] = 1
    matrix[6, 7] = 2
    assert in_blocks([matrix], 8).weights.size == 16  # two columns of eight rows
    assert in_blocks([matrix], 1).weights.size == 5


def test_rows_without_weights_cost_nothing() -> None:
    matrix = np.ones((8, 10), np.float32)
    matrix[::2] = 0
    blocks = in_blocks([matrix], 4)
    assert blocks.weights.size == 40
    assert list(blocks.order) == [1, 3, 5, 7, 0, 2, 4, 6]


def test_rows_keep_their_order_if_asked() -> None:
    matrix = np.ones((10, 3), np.float32)
    matrix[:7] = 0
    blocks = in_blocks([matrix], 4, in_order=True)
    assert list(blocks.order) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, -1, -1]
    assert list(blocks.starts) == [0, 0, 3, 6]
    assert np.array_equal(matrix_of(blocks, 10, 3), matrix)


@pytest.mark.parametrize("outputs", [16, 12])
def test_dense_matrices_store_their_columns_once(outputs: int) -> None:
    blocks = in_blocks([np.ones((outputs, 9), np.float32)], 8)
    assert blocks.shared
    assert len(blocks.columns) == 9
