"""What a person sees during training: one bar on stderr, and a bounded number of log lines."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from billhook.train.result import EpochRecord

_LOG_LINES = 50  # per run, however many epochs it has
_log = logging.getLogger("billhook")


class Reporter:
    """Shows loss, learning rate, throughput and remaining time; silent unless `enabled`.

    The bar needs a terminal. Without one, only the log lines of the epochs remain.
    """

    def __init__(
        self, total: int, done: int, epochs: int, *, enabled: bool, console: Console | None = None
    ) -> None:
        self.enabled = enabled
        self._every = max(1, -(-epochs // _LOG_LINES))
        self._epochs = epochs
        self._since = (time.perf_counter(), 0)
        self._samples = 0
        self._bar: Progress | None = None
        if enabled and (console or sys.stderr.isatty()):
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=console or Console(stderr=True),
                transient=True,
                refresh_per_second=4,
            )
            self._task: TaskID = self._bar.add_task("train", total=total, completed=done, note="")

    def __enter__(self) -> Reporter:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, samples: int) -> None:
        """Count one step."""
        self._samples += samples
        if self._bar is not None:
            self._bar.advance(self._task)

    def figures(self, loss: float, lr: float) -> None:
        """Show the mean loss and the throughput since the last call."""
        if self._bar is None:
            return
        then, before = self._since
        now = time.perf_counter()
        rate = (self._samples - before) / max(1e-9, now - then)
        self._since = (now, self._samples)
        self._bar.update(self._task, note=f"loss {loss:.4f}  lr {lr:.2e}  {rate:,.0f} samples/s")

    def epoch(self, record: EpochRecord) -> None:
        """Log an epoch; of many epochs, every n-th and the last."""
        number = record.epoch + 1
        if self.enabled and (number % self._every == 0 or number == self._epochs):
            metrics = "".join(f", {name} {value:.4f}" for name, value in record.metrics.items())
            _log.info(
                "epoch %d/%d: loss %.4f%s (%.1f s)",
                number,
                self._epochs,
                record.loss,
                metrics,
                record.seconds,
            )
