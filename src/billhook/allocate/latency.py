"""The widest network within a latency bound, found with few measurements of exported networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from billhook.allocate.budget import Bound
from billhook.allocate.costs import Floats

MEASUREMENTS = 8  # at most; each exports a network and runs it for a while

# Fractions of the bound. A quick measurement must leave a little room; one that was confirmed need not.
# From _CLOSE on, no better network is looked for; nor is one whose work differs by less than _SAME, which
# timing could not tell apart.
_INSIDE, _AIM, _CLOSE, _SAME = 0.98, 0.955, 0.92, 0.02


class LatencySample(Protocol):
    """Seconds of a candidate and of the original network, from the same interleaved run."""

    @property
    def candidate(self) -> float:
        """Of the candidate."""

    @property
    def original(self) -> float:
        """Of the original."""


Measure = Callable[[int, bool], LatencySample]


@dataclass
class Search:
    """A secant search in a bracket, on rungs 0 … n-1 of growing work.

    Attributes:
        work: Predictor of latency per rung, relative to the original (see `Work`); increasing.
        bound: Upper bound.
        samples: Latest measurement by rung.
        confirmed: Rungs whose measurement was a long one.
    """

    work: Floats
    bound: Bound
    samples: dict[int, LatencySample] = field(default_factory=dict)
    confirmed: set[int] = field(default_factory=set)

    @property
    def high(self) -> int:
        """Lowest rung known to be too slow."""
        return min((r for r in self.samples if not self._fits(r)), default=len(self.work))

    @property
    def low(self) -> int:
        """Highest rung below `high` that was measured; -1 if none."""
        return max((r for r in self.samples if r < self.high), default=-1)

    @property
    def settled(self) -> bool:
        """True if more quick measurements are of no use."""
        if self.high - self.low <= 1 or len(self.samples) >= MEASUREMENTS:
            return True
        if self.low < 0:
            return False
        above = float(self.work[self.high]) if self.high < len(self.work) else math.inf
        return self.ratio(self.low) >= _CLOSE or above <= (1 + _SAME) * self.work[self.low]

    def ratio(self, rung: int) -> float:
        """Return measured latency over the bound."""
        sample = self.samples[rung]
        return sample.candidate / self.bound.absolute(sample.original)

    def best(self) -> int | None:
        """Return the rung to take as far as is known, None if even the lowest is too slow."""
        if self.low >= 0:
            return self.low
        # Without room to spare, the lowest rung may still fit once it is measured well.
        return 0 if 0 in self.samples and 0 not in self.confirmed and self.ratio(0) <= 1 / _INSIDE else None

    def next_rung(self) -> int:
        """Return the most useful rung to measure, strictly between `low` and `high`."""
        low, high, known = self.low, self.high, sorted(self.samples)
        if not known:
            guess = self.bound.value if self.bound.relative else 0.5  # latency follows work, roughly
        elif low < 0 and len(known) == MEASUREMENTS - 1:
            guess = 0.0  # the last chance to find anything that fits
        elif len(known) == 1:
            guess = float(self.work[known[0]]) * _AIM / self.ratio(known[0])
        else:
            at = max(known.index(high) - 1, 0) if high in known else len(known) - 2
            guess = self._line(*known[at : at + 2])
        # A bracket must shrink even if the line is wrong.
        margin = (high - low) // 10 if low in known and high in known else 0
        rung = int(np.searchsorted(self.work, guess, side="right")) - 1
        return min(max(rung, low + 1 + margin), high - 1 - margin)

    def _fits(self, rung: int) -> bool:
        return self.ratio(rung) <= (1.0 if rung in self.confirmed else _INSIDE)

    def _line(self, a: int, b: int) -> float:
        """Return the work at which the line through two measurements hits the aim."""
        slope = (self.ratio(b) - self.ratio(a)) / (self.work[b] - self.work[a])
        if slope <= 0:  # noise; take the middle of what is left
            return float(self.work[max(self.low, 0)] + self.work[min(self.high, len(self.work) - 1)]) / 2
        return float(self.work[a] + (_AIM - self.ratio(a)) / slope)


def search(work: Floats, measure: Measure, bound: Bound) -> Search:
    """Measure rungs until the widest within `bound` is known well enough, and confirm that one.

    At most `MEASUREMENTS` different rungs are measured. Where nothing fits, rung 0 is among them.

    Args:
        work: Work of each rung relative to the original, increasing.
        measure: Times the network of a rung in turns with the original; thoroughly, if its second argument is
            True.
        bound: Latency bound.
    Returns:
        All samples; its `best()` is confirmed, or None if nothing fits.
    """
    state = Search(work, bound)
    while True:
        if not state.settled:
            rung = state.next_rung()
            state.samples[rung] = measure(rung, False)
            continue
        best = state.best()
        if best is None or best in state.confirmed:
            return state
        state.samples[best] = measure(best, True)
        state.confirmed.add(best)
