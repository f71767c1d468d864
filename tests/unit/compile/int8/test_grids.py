"""Grids of 8 bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billhook.compile.int8.grids import grid, grids
from billhook.compile.int8.ranges import Range
from billhook.compile.ir import Convolution, Pool, Select, Value

bounds = st.floats(-1e6, 1e6)


@given(bounds, bounds)
def test_a_grid_covers_its_range_to_half_a_step_and_has_zero(a: float, b: float) -> None:
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    made = grid(min(a, b), max(a, b))
    assert made.scale > 0
    assert 0 <= made.zero <= 255
    slack = made.scale / 2 + 1e-5 * (high - low)
    assert -made.zero * made.scale <= low + slack
    assert (255 - made.zero) * made.scale >= high - slack
    assert made.scale == float(np.float32(made.scale))  # as the engine has it


@pytest.mark.parametrize(
    ("low", "high", "zero"),
    [(0.0, 5.0, 0), (2.0, 5.0, 0), (-5.0, 0.0, 255), (-5.0, -2.0, 255), (-1.0, 2.0, 85)],
)
def test_zero_points(low: float, high: float, zero: int) -> None:
    assert grid(low, high).zero == zero


def test_zeros_alone_have_a_grid() -> None:
    assert grid(0.0, 0.0).scale > 0
    assert grid(0.0, 1e-30).scale > 0


def test_what_moves_numbers_shares_a_grid_that_covers_all_it_reads() -> None:
    a, b, joined, pooled, made = (Value(name, 4, 2, 2) for name in "abcde")
    select = Select((a, b), joined, np.arange(8, dtype=np.int32))
    pool = Pool((joined,), pooled, mode="max", kernel=(2, 2), stride=(2, 2))
    weight = np.ones((4, 4, 1, 1), np.float32)
    reader = Convolution((pooled,), made, weight, np.zeros(4, np.float32))
    ranges = {"a": Range(-1, 1), "b": Range(0, 9), "c": Range(-9, 99), "d": Range(-9, 99), "e": Range(0, 2)}
    found = grids([select, pool, reader], [select, pool], ranges)
    assert found[a] is found[b] is found[joined] is found[pooled]
    assert found[a] == grid(-1, 9)
    assert found[made] == grid(0, 2)
