"""How far a search is: a bar where there is a terminal, a line now and then where there is none."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from billhook.cli.terminal import Terminal

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from billhook.search.driver import Progress
    from billhook.search.studies.trial import Trial

EVERY = 10.0  # seconds between two lines without a terminal


class SearchProgress:
    """Trials, the best so far with its costs, evaluations per second, and the time that is left.

    Args:
        terminal: Says nothing if that is quiet.
        known: How many trials were finished before; they come back at once and say nothing about speed.
    """

    def __init__(self, terminal: Terminal, known: int = 0) -> None:
        self._terminal, self._known = terminal, known
        self._began: float | None = None
        self._written = time.monotonic()
        self._evaluated = 0
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> SearchProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, trial: Trial, progress: Progress) -> None:
        """Show that a trial is finished."""
        if self._terminal.quiet:
            return
        now = time.monotonic()
        if self._began is None or progress.done <= self._known:
            self._began = now  # what comes before the first trial says nothing about the others
        elif not trial.cached:
            self._evaluated += 1
        words = self.words(progress, now - self._began)
        if sys.stderr.isatty():
            self._draw(progress, words)
        elif now - self._written >= EVERY or progress.done == progress.trials:
            self._written = now
            self._terminal.say(f"  trial {progress.done} of {progress.trials}: {words}")

    def words(self, progress: Progress, seconds: float) -> str:
        """Return the best so far, the speed and the time that is left, in words."""
        parts = ["nothing within the budget yet" if progress.best is None else best_in_words(progress.best)]
        if self._evaluated and seconds > 0:
            rate = self._evaluated / seconds
            parts.append(f"{rate:.1f} trials/s" if rate >= 0.1 else f"{1 / rate:.0f} s per trial")
            left = round((progress.trials - progress.done) / rate)
            parts.append(f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left")
        return ", ".join(parts)

    def _draw(self, progress: Progress, words: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            # Drawn when a trial ends, not in between: a searcher that trains draws its own bar there.
            self._bar = Bar(
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[words]}", markup=False),
                console=Console(stderr=True),
                auto_refresh=False,
            )
            self._task = self._bar.add_task("search", total=progress.trials, words="")
            self._bar.start()
        assert self._task is not None
        self._bar.update(self._task, completed=progress.done, words=words)
        self._bar.refresh()


def best_in_words(trial: Trial) -> str:
    """Return e.g. "best 91.20 % at 14.2 M macs (trial 31)"."""
    from billhook.allocate.budget import format_value

    costs = ", ".join(f"{metric} {format_value(metric, value)}" for metric, value in trial.costs.items())
    return f"best {100 * trial.accuracy:.2f} % at {costs} (trial {trial.number})"
