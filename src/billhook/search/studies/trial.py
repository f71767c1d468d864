"""`Trial`: one evaluated candidate of a search, as plain data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Trial:
    """One evaluated candidate.

    Attributes:
        number: Its place in the search, from 0.
        genes: Index of the chosen value of every gene; see `Space`.
        accuracy: Of the candidate on the validation images, without fine-tuning.
        loss: Mean loss on the same images.
        costs: Metric → value in base units.
        seconds: What the evaluation took; 0 if the result was known.
        key: Of the objective: two trials with equal genes and keys have equal results.
        cached: The result was that of an earlier trial.
        notes: What the searcher wrote down about it.
    """

    number: int
    genes: tuple[int, ...]
    accuracy: float
    loss: float
    costs: Mapping[str, float]
    seconds: float = 0.0
    key: str = ""
    cached: bool = False
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def finite(self) -> bool:
        """False if accuracy or loss is no number."""
        return math.isfinite(self.accuracy) and math.isfinite(self.loss)

    def within(self, limits: Mapping[str, float]) -> bool:
        """Tell if the trial keeps bounds on its costs, by metric and in base units."""
        return all(self.costs[metric] <= limit for metric, limit in limits.items())

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "number": self.number,
            "genes": list(self.genes),
            "accuracy": self.accuracy,
            "loss": self.loss,
            "costs": dict(self.costs),
            "seconds": self.seconds,
            "cached": self.cached,
            "notes": dict(self.notes),
        }


def comparable(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials of the last key that many have: accuracies under two keys say nothing together.

    All of them, unless a searcher changes its objective on the way, as JCW does in every generation. A key
    counts once it has half as many trials as the most frequent one, so that a generation that has only begun
    does not hide the one before.
    """
    counts = Counter(trial.key for trial in trials)
    many = (t.key for t in reversed(trials) if 2 * counts[t.key] >= max(counts.values()))
    last = next(many, "")
    return [trial for trial in trials if trial.key == last]


def by_accuracy(trial: Trial) -> tuple[float, float, int]:
    """Return what to sort by: the most accurate first, of equals those of lower loss, then the earlier."""
    return -trial.accuracy, trial.loss, trial.number


def most_accurate(trials: Sequence[Trial], limits: Mapping[str, float]) -> Trial | None:
    """Return the first of `ranked`; None if no trial keeps the limits."""
    return min((t for t in trials if t.within(limits)), key=by_accuracy, default=None)


def ranked(trials: Sequence[Trial], limits: Mapping[str, float]) -> list[Trial]:
    """Return the trials within the limits, the most accurate first; of equal genes, the first only."""
    found: dict[tuple[int, ...], Trial] = {}
    for trial in sorted((t for t in trials if t.within(limits)), key=by_accuracy):
        found.setdefault(trial.genes, trial)
    return list(found.values())


def front(trials: Sequence[Trial], metric: str) -> list[Trial]:
    """Return the trials that no other beats in both accuracy and cost, the cheapest first; of equals, one."""
    found: list[Trial] = []
    for trial in sorted(trials, key=lambda t: (t.costs[metric], -t.accuracy, t.number)):
        if not found or trial.accuracy > found[-1].accuracy:
            found.append(trial)
    return found
