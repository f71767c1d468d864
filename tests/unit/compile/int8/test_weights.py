"""Weights in whole multiples of a scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from billhook.compile.int8.weights import LARGEST_BIAS, whole

matrices = hn.arrays(np.float32, (3, 5), elements=st.floats(-100, 100, width=32) | st.just(0.0))
vectors = hn.arrays(np.float32, 3, elements=st.floats(-1e6, 1e6, width=32))


@given(matrices, vectors, st.floats(1e-6, 1e3))
def test_weights_are_whole_multiples_near_what_they_were(
    weight: np.ndarray, bias: np.ndarray, step: float
) -> None:
    made = whole(weight, bias, step)
    scale = made.scale.astype(np.float64)[:, None]
    multiples = made.weight / scale
    np.testing.assert_allclose(multiples, np.round(multiples), atol=1e-4)
    assert np.abs(multiples).max() <= 127.001
    assert (scale > 0).all()
    assert (np.abs(made.weight - weight) <= 0.501 * scale + 1e-30).all()
    assert not made.weight[weight == 0].any()
    assert (np.abs(bias) <= 1.001 * LARGEST_BIAS * step * made.scale).all()
    assert (np.abs(made.bias - bias) <= 0.501 * step * made.scale + 1e-7 * np.abs(bias)).all()


def test_the_bias_of_an_output_without_weights_is_kept() -> None:
    bias = np.array([0.3, -1e-4, 700.0], np.float32)
    made = whole(np.zeros((3, 4), np.float32), bias, 0.05)
    np.testing.assert_allclose(made.bias, bias, rtol=1e-5)
    assert not made.overflows


def test_each_row_uses_all_levels_and_empty_rows_have_scale_one() -> None:
    weight = np.array([[1.0, -0.5], [100.0, 1.0], [0.0, 0.0]], np.float32)
    made = whole(weight, np.zeros(3, np.float32), 1.0)
    np.testing.assert_allclose(made.scale, [1 / 127, 100 / 127, 1.0], rtol=1e-6)
    np.testing.assert_allclose(np.abs(made.weight).max(axis=1), [1, 100, 0], rtol=1e-6)


def test_the_mean_error_of_rounding_leaves_the_bias() -> None:
    weight = np.random.default_rng(0).standard_normal((6, 40)).astype(np.float32)
    means = np.random.default_rng(1).uniform(0, 3, (6, 40))
    bias = np.ones(6, np.float32)
    made = whole(weight, bias, 1e-4, means)
    before = (weight * means).sum(axis=1) + bias
    np.testing.assert_allclose((made.weight * means).sum(axis=1) + made.bias, before, atol=1e-5)
    plain = whole(weight, bias, 1e-4)
    assert np.abs((plain.weight * means).sum(axis=1) + bias - before).max() > 1e-3


@pytest.mark.parametrize(("columns", "too_large"), [(1000, False), (40_000, True)])
def test_sums_that_exceed_32_bits_are_told(columns: int, too_large: bool) -> None:
    made = whole(np.ones((2, columns), np.float32), np.zeros(2, np.float32), 1.0)
    assert made.overflows is too_large


def test_a_large_bias_coarsens_weights_and_no_sum_overflows() -> None:
    made = whole(np.ones((1, 4), np.float32), np.full(1, 1e9, np.float32), 1e-3)
    assert not made.overflows
    assert made.scale[0] > 1 / 127
