from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billhook.allocate.rounding import allowed_counts, keep_best, nearest


@pytest.mark.parametrize(
    ("size", "width", "multiple", "allowed"),
    [
        (10, 1, 4, [4, 8, 10]),
        (8, 1, 4, [4, 8]),
        (3, 1, 4, [3]),  # too small: stays whole
        (5, 1, 1, [1, 2, 3, 4, 5]),
        (6, 8, 16, [2, 4, 6]),  # two units of 8 channels make 16
        (4, 64, 16, [1, 2, 3, 4]),  # every head is a multiple by itself
        (4, 12, 8, [2, 4]),
    ],
)
def test_allowed_counts_by_hand(size: int, width: int, multiple: int, allowed: list[int]) -> None:
    assert allowed_counts(size, width, lambda channels: channels % multiple == 0).tolist() == allowed


@given(st.integers(1, 300), st.integers(1, 70), st.integers(1, 64))
def test_a_group_keeps_a_multiple_or_stays_whole(size: int, width: int, multiple: int) -> None:
    allowed = allowed_counts(size, width, lambda channels: channels % multiple == 0)
    assert allowed[-1] == size
    assert allowed[0] >= 1
    assert (np.diff(allowed) > 0).all()
    assert (allowed[:-1] * width % multiple == 0).all()


def test_nearest_rounds_to_the_closer_side_and_up_on_a_tie() -> None:
    allowed = np.array([4, 8, 10])
    assert nearest(np.array([0.0, 5.9, 6.0, 8.9, 9.0, 10.0]), allowed).tolist() == [4, 4, 8, 8, 10, 10]


def test_the_best_stay_and_among_equals_the_first() -> None:
    assert keep_best(np.array([1.0, 3.0, 3.0, 2.0, 3.0]), 2).tolist() == [False, True, True, False, False]
