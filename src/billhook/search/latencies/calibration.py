"""From terms that grow with a network to its time: non-negative least squares on whole networks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from billhook.errors import StorageError
from billhook.search.space import Floats

FOLDS = 6
_ORIGINAL = 3.0  # weight of the original, which was timed in turns with every sample


@dataclass(frozen=True)
class Calibration:
    """Time relative to the original network: Σ coefficient · term + constant, none of them negative.

    As terms never fall where a network grows, neither does time.

    Attributes:
        coefficients: One for each term.
        constant: What a network takes however small it is.
    """

    coefficients: tuple[float, ...]
    constant: float

    def __post_init__(self) -> None:
        if not all(np.isfinite(c) and c >= 0 for c in (*self.coefficients, self.constant)):
            raise StorageError("calibration: numbers must be finite and at least 0")

    def of(self, terms: Floats) -> Floats:
        """Return relative times for terms [rows, terms]: [rows]."""
        times: Floats = terms @ np.array(self.coefficients) + self.constant
        return times


def calibrate(terms: Floats, ratios: Floats, penalty: Floats) -> Calibration:
    """Return the calibration with the least squares of relative errors.

    Args:
        terms: Of networks that were timed, relative to those of the original; [samples, terms].
        ratios: Their measured times, relative to the original's; [samples].
        penalty: What the square of each coefficient adds: the larger, the more other terms are preferred;
            [terms].
    """
    everyone, times = np.vstack([terms, np.ones_like(penalty)]), np.append(ratios, 1.0)
    weights = np.append(1 / ratios, _ORIGINAL)
    rows = np.hstack([everyone, np.ones((len(everyone), 1))]) * weights[:, None]
    extra = np.diag(np.append(np.sqrt(penalty), 0.0))
    matrix, aims = np.vstack([rows, extra]), np.append(times * weights, np.zeros(len(extra)))
    solution, _ = nnls(matrix, aims, maxiter=100 * matrix.shape[1])
    return Calibration(tuple(map(float, solution[:-1])), float(solution[-1]))


def held_out(terms: Floats, ratios: Floats, penalty: Floats) -> Floats:
    """Return predicted / measured − 1 of every sample, by a calibration without it and others: [samples]."""
    errors = np.zeros(len(ratios))
    fold: npt.NDArray[np.int64] = np.arange(len(ratios)) % FOLDS
    for out in (fold == f for f in range(min(FOLDS, len(ratios)))):
        made = calibrate(terms[~out], ratios[~out], penalty)
        errors[out] = made.of(terms[out]) / ratios[out] - 1
    return errors
