"""When a method that prunes step by step takes its steps, and how large they are."""

from __future__ import annotations


def progress_at(done: float, schedule: str) -> float:
    """Return how far the budget has been approached after the fraction `done` of the pruning phase.

    "linear" takes the same cost away each time, "cubic" most of it early, while there is time to recover
    (Zhu, Gupta, "To prune, or not to prune", 2017, eq. (1)).
    """
    done = min(1.0, max(0.0, done))
    return done if schedule == "linear" else 1 - (1 - done) ** 3


def round_at(step: int, total: int, rounds: int, until: float) -> int | None:
    """Return which round, from 1, is held before `step`; None if none is.

    Args:
        step: Of the training, from 0.
        total: Steps of the whole training.
        rounds: How many there are.
        until: Part of the training in which they are held.
    """
    last = max(1, round(until * total))
    for number in range(1, rounds + 1):
        if step == (number - 1) * last // rounds:
            following = number * last // rounds
            if following > step:  # of several rounds in one step, the last one counts
                return number
    return None
