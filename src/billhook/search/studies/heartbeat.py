"""Signs of life while a process is busy with something that takes longer than a claim may be silent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

from billhook.errors import StorageError

_EVERY = 1.0  # seconds; `Study.beat` knows when it is time to write


@contextmanager
def beating(beat: Callable[[], None]) -> Generator[None]:
    """Call `beat` every second beside what the block does, which must not use the study itself.

    A study that cannot be written is left alone: who uses it next is told.
    """
    over = threading.Event()

    def keep_on() -> None:
        with suppress(StorageError):
            while not over.wait(_EVERY):
                beat()

    thread = threading.Thread(target=keep_on, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
