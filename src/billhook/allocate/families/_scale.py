"""Scores of different groups on one scale."""

from __future__ import annotations

import numpy as np

from billhook.allocate.costs import Floats


def normalized(scores: Floats, by: str) -> Floats:
    """Return `scores` divided by the mean or the maximum of their absolute values ("none": by 1).

    Scores that are all zero stay zero: every unit of such a group leaves before any other.
    """
    size = np.abs(scores)
    scale = {"mean": size.mean(), "max": size.max(), "none": 1.0}[by]
    return scores / scale if scale > 0 else scores
