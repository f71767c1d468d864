"""From the numbers of a value to the range that its grid covers: all, nearly all, or what costs least."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from billhook.compile.int8.histogram import Histogram

STEPS = 255
PERCENTILE = 99.99
_CANDIDATES = 128  # bounds that are tried at either end


@dataclass(frozen=True)
class Range:
    """What a value holds on the calibration data.

    Attributes:
        low, high: Numbers that its grid shall cover.
        means: Mean of each channel, [channels]; None if not known.
    """

    low: float
    high: float
    means: npt.NDArray[np.float64] | None = None


def minmax(seen: Histogram, percentile: float) -> tuple[float, float]:
    """Return the smallest and the largest number."""
    return seen.low, seen.high


def percentile(seen: Histogram, percentile: float) -> tuple[float, float]:
    """Return the bounds below and above which 100 - `percentile` per cent of all numbers lie."""
    centres, counts = np.append(seen.centres, 0.0), np.append(seen.counts, seen.zeros)
    order = np.argsort(centres, kind="stable")
    share = np.cumsum(counts[order]) / counts.sum()
    left_out = 1 - percentile / 100
    last = len(order) - 1
    low = centres[order][min(last, int(np.searchsorted(share, left_out, side="right")))]
    high = centres[order][min(last, int(np.searchsorted(share, 1 - left_out)))]
    return float(low), float(high)


def mse(seen: Histogram, percentile: float) -> tuple[float, float]:
    """Return the bounds between which the squared error of rounding and cutting off is least.

    Numbers within a step are taken as spread evenly, which costs step² / 12 each; zero costs nothing.
    """
    if not seen.width:
        return seen.low, seen.high
    shares = np.arange(_CANDIDATES, 0, -1) / _CANDIDATES
    lows = seen.low * shares if seen.low < 0 else np.zeros(1)
    highs = seen.high * shares if seen.high > 0 else np.zeros(1)
    below, above = _beyond(seen, lows, -1), _beyond(seen, highs, 1)
    step = (highs - lows[:, None]) / STEPS
    inside = seen.counts.sum() - below[0][:, None] - above[0]
    error = inside * step**2 / 12 + below[1][:, None] + above[1]
    low, high = np.unravel_index(int(error.argmin()), error.shape)
    return float(lows[low]), float(highs[high])


def _beyond(seen: Histogram, bounds: npt.NDArray[np.float64], sign: int) -> tuple[np.ndarray, np.ndarray]:
    """Return, for every bound, how many numbers lie beyond it, and their squared distances from it."""
    centres, counts, bounds = sign * seen.centres, seen.counts, sign * bounds
    if sign < 0:
        centres, counts = centres[::-1], counts[::-1]
    sums = [np.append(np.cumsum((counts * centres**power)[::-1])[::-1], 0.0) for power in range(3)]
    n, first, second = (s[np.searchsorted(centres, bounds, side="right")] for s in sums)
    return n, np.maximum(second - 2 * bounds * first + bounds**2 * n, 0.0)


METHODS: Mapping[str, Callable[[Histogram, float], tuple[float, float]]] = {
    "minmax": minmax,
    "percentile": percentile,
    "mse": mse,
}
"""How a range is found, by name."""
