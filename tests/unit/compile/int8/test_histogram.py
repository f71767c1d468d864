"""Counts of numbers, whatever comes first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from billhook.compile.int8.histogram import BINS, Histogram

batches = st.lists(
    st.lists(st.floats(-1e6, 1e6, width=32) | st.just(0.0), min_size=1, max_size=20), min_size=1, max_size=6
)


@given(batches)
def test_every_number_is_counted_once_where_it_is(parts: list[list[float]]) -> None:
    seen = Histogram()
    for part in parts:
        seen.add(torch.tensor(part))
    numbers = np.array([x for part in parts for x in part])
    assert (seen.low, seen.high) == (numbers.min(), numbers.max())
    assert seen.zeros == (numbers == 0).sum()
    others = np.sort(numbers[numbers != 0])
    assert seen.counts.sum() == len(others)
    assert (seen.counts >= 0).all()
    assert len(seen.counts) <= BINS + 1
    found = np.repeat(seen.centres, seen.counts.astype(int))
    assert np.abs(found - others).max(initial=0.0) <= seen.width


@given(batches)
def test_the_order_of_batches_changes_the_width_at_most_by_half(parts: list[list[float]]) -> None:
    forward, backward = Histogram(), Histogram()
    for part in parts:
        forward.add(torch.tensor(part))
    for part in reversed(parts):
        backward.add(torch.tensor(part))
    assert forward.width == backward.width or forward.width / backward.width in (0.5, 2.0)


def test_bins_are_fine_enough_for_a_grid_and_stay_few() -> None:
    seen = Histogram()
    for size in (1e-6, 1.0, 1e4, 1.0):
        seen.add(size * torch.randn(1000, generator=torch.Generator().manual_seed(0)))
    assert 8 * 255 <= len(seen.counts) <= BINS + 1


@pytest.mark.parametrize("numbers", [[], [0.0, 0.0]])
def test_nothing_and_zeros_have_no_bins(numbers: list[float]) -> None:
    seen = Histogram()
    seen.add(torch.tensor(numbers))
    assert seen.width == 0
    assert seen.zeros == len(numbers)
