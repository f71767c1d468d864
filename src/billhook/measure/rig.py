"""`LatencyRig`: candidate after candidate timed against the same warm original."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import dataclass, replace

from billhook.errors import MeasureError
from billhook.measure.artifact import Artifact
from billhook.measure.environment import quiet_cores
from billhook.measure.latency import start, take_turns
from billhook.measure.process import WorkerProcess
from billhook.measure.rounds import QUICK, Timing, ratio_of_rounds


@dataclass(frozen=True)
class LatencySample:
    """Times of a candidate and of the original, taken in turns.

    Attributes:
        candidate: Seconds; the original's median times the median of the ratios round by round, so that a
            machine that changes its speed on the way moves neither.
        original: Seconds, median.
        ratio_of_minima: Fastest run over fastest run; far from `ratio` means the machine was busy.
    """

    candidate: float
    original: float
    ratio_of_minima: float | None = None

    @property
    def ratio(self) -> float:
        """Candidate over original; below 1 is faster."""
        return self.candidate / self.original


class LatencyRig:
    """Keeps the original's worker warm, so that each candidate costs one new process and two sets of turns.

    Use it in a `with` block:

        with LatencyRig(original) as rig:
            sample = rig.relative_latency(candidate)

    Args:
        original: What candidates are compared with.
        timing: Length and number of turns for each candidate.
    """

    def __init__(self, original: Artifact, timing: Timing = QUICK) -> None:
        self.original = original
        self.timing = timing
        self._stack: ExitStack | None = None
        self._worker: WorkerProcess | None = None
        self._cores: list[int] = []

    def __enter__(self) -> LatencyRig:
        self._cores = quiet_cores(self.timing.threads)
        self._stack = ExitStack()
        self._worker = self._stack.enter_context(start(self.original, self.timing, self._cores))
        return self

    def __exit__(self, *exc: object) -> None:
        if self._stack is not None:
            self._stack.close()
        self._stack = self._worker = None

    def relative_latency(self, candidate: Artifact, timing: Timing | None = None) -> LatencySample:
        """Return the times of `candidate` and of the original.

        Args:
            candidate: What to time.
            timing: More or longer turns than usual, e.g. to confirm a result; threads and batch size stay.
        Raises:
            MeasureError: if a worker fails, or outside the `with` block.
        """
        if self._worker is None:
            raise MeasureError("the latency rig is not running; use it in a with block")
        # The original is already loaded for these threads and this batch size.
        timing = replace(timing or self.timing, threads=self.timing.threads, batch=self.timing.batch)
        with start(candidate, timing, self._cores) as worker:
            ours, theirs = take_turns([worker, self._worker], timing)
        original = statistics.median(r.median for r in theirs)
        minima = min(r.minimum for r in ours) / min(r.minimum for r in theirs)
        return LatencySample(ratio_of_rounds(ours, theirs) * original, original, minima)
