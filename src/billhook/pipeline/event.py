"""What the pipeline tells whoever listens (the command line, a notebook) while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Event:
    """Something happened.

    Attributes:
        kind: "start" and "done" of a stage, "skip" if it was finished by an earlier process,
            "note" for what a person should know.
        stage: Name of the stage; "" outside of stages.
        text: One line for people.
        outcome: What a stage that is done found, in one line.
        seconds: How long a stage that is done took.
    """

    kind: Literal["start", "done", "skip", "note"]
    stage: str = ""
    text: str = ""
    outcome: str = ""
    seconds: float = 0.0


Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """Listen to nothing."""
