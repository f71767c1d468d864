"""Learning rate as a function of the step: nothing to save, nothing to get out of step on resume."""

from __future__ import annotations

import math

_START = 1 / 25  # one-cycle begins at this fraction of the peak, as in common practice,
_END = 1e-4  # and ends at this fraction


def learning_rate(step: int, total: int, *, peak: float, schedule: str, warmup: float) -> float:
    """Return the learning rate of one step.

    "one-cycle" rises from peak/25 along a half cosine and falls to peak/10,000 along another; "cosine"
    rises linearly and falls to 0 along a half cosine; "constant" rises linearly and stays.

    Args:
        step: Index of the step, from 0.
        total: Number of steps of the run.
        peak: Largest learning rate.
        schedule: "one-cycle", "cosine" or "constant".
        warmup: Fraction of the steps during which the rate rises.
    Returns:
        Learning rate, above 0 for every step before `total`.
    References:
        Smith, Topin, "Super-Convergence", 2018. arXiv:1708.07120.
        Loshchilov, Hutter, "SGDR", ICLR 2017. arXiv:1608.03983.
    """
    rising = warmup * total
    if step < rising:
        if schedule == "one-cycle":
            return peak * _between(_START, 1.0, step / rising)
        return peak * min(1.0, (step + 1) / rising)
    if schedule == "constant":
        return peak
    done = (step - rising) / max(1.0, total - rising)
    return peak * _between(1.0, _END if schedule == "one-cycle" else 0.0, done)


def _between(start: float, end: float, done: float) -> float:
    """Half a cosine from `start` (done = 0) to `end` (done = 1)."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, done))) / 2
