"""`Terminal`: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from billhook.pipeline import Event

PIPE_WIDTH = 140


@dataclass(frozen=True)
class Terminal:
    """Where a command writes.

    Attributes:
        as_json: stdout carries one JSON document and nothing else.
        quiet: No progress; errors and data are still written.
    """

    as_json: bool = False
    quiet: bool = False

    def data(self, plain: Any, *renderables: Any) -> None:
        """Write the outcome: `plain` as JSON if that was asked for, otherwise `renderables` for people."""
        text = json.dumps(plain, indent=1, allow_nan=False) + "\n" if self.as_json else _rendered(renderables)
        sys.stdout.write(text)
        sys.stdout.flush()  # a reader that has gone is noticed here, not when the interpreter ends

    def say(self, message: str) -> None:
        """Write a message about what goes on."""
        if not self.quiet:
            sys.stderr.write(message + "\n")

    def show(self, event: Event) -> None:
        """Write one line about a step of a run."""
        if event.kind == "start":
            self.say(f"  {event.text} …")
        elif event.kind == "skip":
            self.say(f"✓ {event.text}: done before")
        elif event.kind == "done":
            outcome = f": {event.outcome}" if event.outcome else ""
            self.say(f"✓ {event.text}{outcome} ({event.seconds:.1f} s)")
        elif event.kind == "note":
            self.warn(event.text)

    def warn(self, message: str) -> None:
        """Write a message that must be seen even with --quiet."""
        sys.stderr.write(f"note: {message}\n")


def _rendered(items: Sequence[Any]) -> str:
    from rich.console import Console

    # A pipe has no width; wide enough that names stay in one piece. COLUMNS still has its say.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    console = Console(file=sys.stdout, width=width, highlight=False)
    with console.capture() as captured:
        for item in items:
            console.print(item, markup=False)
    return captured.get()
