"""Widths a runtime likes: which numbers of units a group may keep."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


def allowed_counts(size: int, width: int, fits: Callable[[int], bool]) -> Counts:
    """Return the numbers of units that give a number of channels which `fits`, and the full size.

    Args:
        size: Units of the group.
        width: Channels per unit.
        fits: Whether a number of channels is one the runtime likes.
    Returns:
        Increasing, at least one entry, none below 1. A group too small for any of them has only its full
        size, and so stays whole.
    """
    return np.array([*(n for n in range(1, size) if fits(n * width)), size], dtype=np.int64)


def nearest(wanted: npt.NDArray[np.float64], allowed: Counts) -> Counts:
    """Return the entry of `allowed` nearest to each wanted number; a tie goes to the larger.

    Nearest, because rounding up or to a coarser multiple gains no speed. Order is kept: who wants more
    does not get less.
    """
    middles = (allowed[1:] + allowed[:-1]) / 2
    return allowed[np.searchsorted(middles, wanted, side="right")]


def keep_best(scores: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.bool_]:
    """Return a mask of the `count` highest scores; among equals, lower indices stay."""
    keep = np.zeros(len(scores), dtype=bool)
    keep[np.argsort(-scores, kind="stable")[:count]] = True
    return keep
