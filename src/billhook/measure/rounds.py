"""How timing is planned and summed up: pure functions on the rounds that workers report."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from billhook.errors import InputError
from billhook.results import Measurement

Clock = Literal["core", "wall"]
CLOCK_RESOLUTION = 1e-6


@dataclass(frozen=True)
class Timing:
    """How long and how often to time.

    Configurations take turns in rounds, because a shared or warm machine changes its speed from second
    to second: only what was interleaved may be compared.

    Attributes:
        rounds: Turns of every configuration; 7 or more for numbers that are reported.
        seconds_per_round: Length of a turn; at least one run happens even if it takes longer.
        warmup: Seconds each configuration runs before the first round.
        threads: Threads of the runtime; the worker is pinned to as many cores.
        batch: Batch size; None for that of the example inputs.
        timeout: Seconds to wait for an answer of a worker.
    """

    rounds: int = 7
    seconds_per_round: float = 0.5
    warmup: float = 0.2
    threads: int = 1
    batch: int | None = 1
    timeout: float = 120.0

    def __post_init__(self) -> None:
        for name, value, low in (
            ("rounds", self.rounds, 1),
            ("threads", self.threads, 1),
            ("batch", 1 if self.batch is None else self.batch, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise InputError(f"{name}={value!r}: expected a whole number from {low}")
        for name, seconds in (("seconds_per_round", self.seconds_per_round), ("timeout", self.timeout)):
            if not (math.isfinite(seconds) and seconds > 0):
                raise InputError(f"{name}={seconds!r}: expected a positive number of seconds")
        if not (math.isfinite(self.warmup) and self.warmup >= 0):
            raise InputError(f"warmup={self.warmup!r}: expected seconds, 0 for none")

    @property
    def clock(self) -> Clock:
        """Which clock counts: time on the core for one thread, else wall time.

        On an idle machine both agree. On a shared one, neighbours interrupt long runs more than short ones,
        so wall time falsifies even ratios: of two networks whose core times have the ratio 0.44 ± 1 %, wall
        medians gave 0.42 to 0.45 ± 2–17 % and fastest runs 0.28 to 0.40 ± 3–30 % (two cores, 0 to 2 busy
        neighbours on the core, 7 rounds of 0.5 s or 9 of 0.06 s).
        """
        fine = time.get_clock_info("process_time").resolution <= CLOCK_RESOLUTION
        return "core" if self.threads == 1 and fine else "wall"


QUICK = Timing(rounds=9, seconds_per_round=0.06, warmup=0.1)
"""For searches. The ratio to the original matters there, and more, shorter turns serve it best: ± 1 %."""


@dataclass(frozen=True)
class Round:
    """One turn of one worker, in seconds of the clock that counts.

    Attributes:
        wall_median: Median by wall time.
        core_share: Processor time over wall time; on one thread, less than 1 means the core was shared.
    """

    median: float
    minimum: float
    maximum: float
    wall_median: float
    runs: int
    core_share: float


@dataclass(frozen=True)
class Comparison:
    """Time relative to a baseline; below 1 is faster.

    Attributes:
        medians: Ratio of the medians, the headline.
        minima: Ratio of the fastest runs; far from `medians` means the machine was not steady.
        wall_medians: Ratio of the medians by wall time; far from `medians` means the cores were shared.
    """

    medians: float
    minima: float
    wall_medians: float

    @property
    def speedup(self) -> float:
        """How many times faster, by medians."""
        return 1 / self.medians


def summarise(rounds: Sequence[Round], clock: Clock, conditions: Mapping[str, Any]) -> Measurement:
    """Return the latency measurement of one worker's rounds.

    The samples are the medians of the rounds, so the extremes tell how steady the machine was, not how
    long the longest hiccup took. The fastest single run is among the conditions.
    """
    medians = [r.median for r in rounds]
    value = statistics.median(medians)
    own = {
        "clock": {"core": "time on the core", "wall": "wall time"}[clock],
        "statistic": "median of round medians",
        "rounds": len(rounds),
        "runs": sum(r.runs for r in rounds),
        "fastest_run_s": min(r.minimum for r in rounds),
        "slowest_run_s": max(r.maximum for r in rounds),
        "wall_median_s": statistics.median(r.wall_median for r in rounds),
        "core_share": round(statistics.median(r.core_share for r in rounds), 3),
    }
    return Measurement(value, "s", len(rounds), min(medians), max(medians), {**conditions, **own})


def compare(measurements: Sequence[Measurement], baseline: Measurement) -> list[Comparison]:
    """Return each latency relative to `baseline`; all must come from one run of `latency`.

    Raises:
        InputError: if a measurement is not a latency.
    """
    for m in (baseline, *measurements):
        if m.unit != "s" or m.value <= 0 or not {"fastest_run_s", "wall_median_s"} <= set(m.conditions):
            raise InputError(f"cannot compare {m.value!r} {m.unit}: not a latency from billhook.measure")
    base = baseline.conditions
    return [
        Comparison(
            m.value / baseline.value,
            m.conditions["fastest_run_s"] / base["fastest_run_s"],
            m.conditions["wall_median_s"] / base["wall_median_s"],
        )
        for m in measurements
    ]


def ratio_of_rounds(candidate: Sequence[Round], original: Sequence[Round]) -> float:
    """Return the median over rounds of candidate time / original time.

    Neighbours in time are compared first, so a machine that changes speed half-way does not matter.
    """
    return statistics.median(c.median / o.median for c, o in zip(candidate, original, strict=True))
