"""Ranges that grids shall cover."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from billhook.compile.int8.grids import grid
from billhook.compile.int8.histogram import Histogram
from billhook.compile.int8.ranges import METHODS


def seen(numbers: torch.Tensor) -> Histogram:
    """Return the counts of numbers."""
    histogram = Histogram()
    histogram.add(numbers)
    return histogram


def normal(count: int = 100_000) -> torch.Tensor:
    """Return numbers that are normally distributed, the same in every run."""
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


def error(numbers: torch.Tensor, low: float, high: float) -> float:
    """Return the mean squared error of numbers on the grid of a range."""
    made = grid(low, high)
    rounded = ((numbers / made.scale + made.zero).round().clamp(0, 255) - made.zero) * made.scale
    return float(((numbers - rounded) ** 2).mean())


def test_minmax_takes_all() -> None:
    numbers = torch.tensor([-3.0, 0.5, 7.0])
    assert METHODS["minmax"](seen(numbers), 99.0) == (-3.0, 7.0)


@pytest.mark.parametrize("share", [90.0, 99.0, 99.9])
def test_percentile_leaves_out_the_same_share_at_either_end(share: float) -> None:
    numbers = normal()
    low, high = METHODS["percentile"](seen(numbers), share)
    left_out = 1 - share / 100
    assert low == pytest.approx(float(np.quantile(numbers, left_out)), abs=0.01)
    assert high == pytest.approx(float(np.quantile(numbers, 1 - left_out)), abs=0.01)


def test_percentile_counts_zeros() -> None:
    numbers = torch.cat([torch.zeros(990), torch.linspace(1, 10, 10)])
    assert METHODS["percentile"](seen(numbers), 98.0) == (0.0, 0.0)
    assert METHODS["percentile"](seen(numbers), 99.5)[1] == pytest.approx(5.5, abs=0.6)


DISTRIBUTIONS = {
    "normal": normal(),
    "rectified": normal().relu(),
    "heavy tails": normal() ** 3,
    "an outlier": torch.cat([normal(1_000_000), torch.tensor([20.0])]),
    "far from zero": normal() + 20,
    "negative": -normal().abs(),
    "uniform": torch.linspace(-1, 2, 10_000),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_mse_is_better_than_other_ranges(name: str) -> None:
    numbers = DISTRIBUTIONS[name]
    histogram = seen(numbers)
    best = error(numbers, *METHODS["mse"](histogram, 100.0))
    for share in (1.0, 0.9, 0.7, 0.5, 0.3):
        assert best <= 1.02 * error(numbers, share * histogram.low, share * histogram.high)


def test_mse_cuts_an_outlier_off_and_keeps_a_flat_range() -> None:
    assert METHODS["mse"](seen(DISTRIBUTIONS["an outlier"]), 100.0)[1] < 12
    low, high = METHODS["mse"](seen(DISTRIBUTIONS["uniform"]), 100.0)
    assert (low, high) == pytest.approx((-1, 2), rel=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_zeros_alone_have_a_range(method: str) -> None:
    assert METHODS[method](seen(torch.zeros(5)), 99.0) == (0.0, 0.0)
