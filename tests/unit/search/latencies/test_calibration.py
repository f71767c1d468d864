"""Coefficients from timed networks: known ones are found again, and none is negative."""

from __future__ import annotations

import numpy as np
import pytest

from billhook.errors import StorageError
from billhook.search.latencies.calibration import FOLDS, Calibration, calibrate, held_out


def test_a_known_factor_and_constant_are_found_again() -> None:
    terms = np.random.default_rng(0).uniform(0.05, 1, (12, 1))
    ratios = 0.8 * terms[:, 0] + 0.2
    found = calibrate(terms, ratios, np.zeros(1))
    assert found.coefficients[0] == pytest.approx(0.8)
    assert found.constant == pytest.approx(0.2)
    assert found.of(terms) == pytest.approx(ratios)
    assert held_out(terms, ratios, np.zeros(1)) == pytest.approx(0, abs=1e-9)


def test_no_coefficient_is_negative_even_where_that_would_fit_better() -> None:
    terms = np.random.default_rng(0).uniform(0.1, 1, (30, 3))
    ratios = terms[:, 0] - 0.2 * terms[:, 1] + 0.2
    found = calibrate(terms, ratios, np.zeros(3))
    assert min(*found.coefficients, found.constant) >= 0
    assert found.coefficients[0] > 0.7


def test_of_two_terms_that_say_the_same_the_one_without_a_penalty_is_taken() -> None:
    term = np.random.default_rng(0).uniform(0.1, 1, (20, 1))
    found = calibrate(np.hstack([term, term]), term[:, 0], np.array([1.0, 0.0]))
    assert found.coefficients == pytest.approx((0, 1), abs=1e-6)


def test_errors_are_those_of_samples_that_the_calibration_has_not_seen() -> None:
    rng = np.random.default_rng(0)
    terms, ratios = rng.uniform(0.1, 1, (FOLDS, 40)), rng.uniform(0.1, 1, FOLDS)  # nothing to learn
    free = np.zeros(40)
    seen = np.abs(calibrate(terms, ratios, free).of(terms) / ratios - 1)
    assert 3 * seen.mean() < np.abs(held_out(terms, ratios, free)).mean()


@pytest.mark.parametrize("wrong", [((-0.1,), 0.0), ((0.1,), -1.0), ((float("nan"),), 0.0)])
def test_a_damaged_calibration_is_refused(wrong: tuple[tuple[float, ...], float]) -> None:
    with pytest.raises(StorageError, match="finite and at least 0"):
        Calibration(*wrong)
