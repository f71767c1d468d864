"""Times of layers, kept on disk: a layer is timed once on a machine."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from math import isfinite
from pathlib import Path

from billhook import __version__
from billhook.compile.library import library_path
from billhook.errors import StorageError
from billhook.json_record import read_json, write_json
from billhook.measure.environment import environment

log = logging.getLogger("billhook")

MAX_BYTES = 2**24


class LayerCache:
    """Seconds by the text that says what was timed, for one engine on one machine.

    What is on the disk counts for one version of billhook, one build of the engine, one processor, one
    instruction set and number of threads. A file that is damaged or not ours is not used.
    """

    def __init__(self, isa: str, threads: int) -> None:
        engine = hashlib.sha256(library_path().read_bytes()).hexdigest()
        conditions = [__version__, engine, environment()["cpu"], isa, threads]
        key = hashlib.sha256(json.dumps(conditions).encode()).hexdigest()[:32]
        self._path = folder() / f"{key}.json"
        self.seconds: dict[str, float] = self._read()

    def add(self, seconds: Mapping[str, float]) -> None:
        """Keep more times, beside those that others have written meanwhile."""
        self.seconds |= seconds
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, {**self._read(), **self.seconds})
        except (OSError, StorageError) as e:
            log.info("times of layers are not kept: %s", e)  # the next time takes as long, and nothing else

    def _read(self) -> dict[str, float]:
        try:
            found = read_json(self._path, MAX_BYTES)
        except StorageError:
            return {}
        if not isinstance(found, Mapping) or not all(_is_time(t) for t in found.values()):
            return {}
        return {str(what): float(time) for what, time in found.items()}


def folder() -> Path:
    """Return where the times are kept: $XDG_CACHE_HOME/billhook/layers, or ~/.cache/billhook/layers."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "billhook" / "layers"


def _is_time(value: object) -> bool:
    return isinstance(value, float) and isfinite(value) and value >= 0
