"""Learning rate as a function of the step: nothing to save, nothing to get out of step on resume."""

from __future__ import annotations

import math

_START = 1 / 25  # one-cycle begins at this fraction of the peak, as in common practice,
_END = 1e-4  # and ends at this fraction
_LAST = 1e-3  # "step" ends at this fraction: three times a tenth


def learning_rate(step: int, total: int, *, peak: float, schedule: str, warmup: float) -> float:
    """Return the learning rate of one step.

    "one-cycle" rises from peak/25 along a half cosine and falls to peak/10,000 along another; "cosine"
    rises linearly and falls to 0 along a half cosine; "linear" rises and falls to 0 along straight lines;
    "constant" rises linearly and stays; "step" falls to a tenth after a half, three quarters and seven
    eighths of the steps.

    Args:
        step: Index of the step, from 0.
        total: Number of steps of the run.
        peak: Largest learning rate.
        schedule: "one-cycle", "cosine", "linear", "constant" or "step".
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
    if schedule == "step":
        return [lr for first, lr in stages(total, peak, last=_LAST * peak, longest=total) if first <= step][
            -1
        ]
    done = (step - rising) / max(1.0, total - rising)
    if schedule == "linear":
        return peak * (1.0 - done)
    return peak * _between(1.0, _END if schedule == "one-cycle" else 0.0, done)


def stages(epochs: int, first: float, *, last: float = 1e-5, longest: int = 30) -> list[tuple[int, float]]:
    """Return the learning rates of a run as pairs: epoch from which it holds, and rate.

    Each rate is a tenth of the one before. Half of the epochs go to the first rate, half of the rest to the
    next, and so on; the last rate gets what is left. Runs of any length end at the same rate and so are
    comparable.

    Args:
        epochs: Length of the run.
        first: Rate of the first stage.
        last: Rate of the last stage, a power of ten below the first.
        longest: No stage but the last is longer.
    References:
        Wang et al., "Why is the State of Neural Network Pruning so Confusing?", 2023. arXiv:2301.05219.
    """
    count = 1 + max(0, round(math.log10(first / last)))
    begin, found = 0, []
    for number in range(count):
        found.append((begin, first / 10**number))
        begin += min(longest, (epochs - begin + 1) // 2)
    return found


def _between(start: float, end: float, done: float) -> float:
    """Half a cosine from `start` (done = 0) to `end` (done = 1)."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, done))) / 2
