"""`RunDirectory`: the directory of one run. Files appear whole or not at all; no run overwrites another."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from billhook.errors import InputError, StorageError
from billhook.json_record import read_json, read_text

RECIPE = "recipe.toml"
EVENTS = "events.jsonl"
MAX_BYTES = 256 * 2**20


class RunDirectory:
    """A run directory: the resolved recipe, what each stage handed back, and the files stages made.

    Layout: `recipe.toml`, `environment.json`, `events.jsonl`, `stages/NAME.json` (one per finished
    stage), `plan.json`, `weights.safetensors`, `groups.json`, `layers.json`, `artifacts/`,
    `results.json`, `report.html`. A stage is finished when its file in `stages/` exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, parent: Path, name: str) -> RunDirectory:
        """Make a new directory `parent/name`, or `name-2`, `name-3` … where that is taken.

        Raises:
            StorageError: if it cannot be made.
        """
        with storage_errors(parent):
            parent.mkdir(parents=True, exist_ok=True)
            for count in range(1, 100_000):
                path = parent / (name if count == 1 else f"{name}-{count}")
                try:
                    path.mkdir()
                except FileExistsError:
                    continue
                (path / "stages").mkdir()
                return cls(path)
        raise StorageError(f"{parent}: no free name for a run called {name!r}")

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Return the run in an existing directory.

        Raises:
            InputError: if `path` is not a run directory.
        """
        if not path.is_dir():
            raise InputError(f"run directory {path} does not exist")
        if not (path / RECIPE).is_file():
            raise InputError(f"{path} is not a run directory: it has no {RECIPE}")
        return cls(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the run for this process: two that write into one directory would destroy it.

        Raises:
            InputError: if another process works on this run.
        """
        with storage_errors(self.path):
            lock = open(self.path / ".lock", "a")  # noqa: SIM115 (closed below; the body is not about this file)
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"another process is working on the run {self.path}; wait for it to end"
                ) from None
            yield  # the system gives the lock back when the file is closed, also after a crash

    def file(self, name: str) -> Path:
        """Return the path of a file or folder of this run."""
        return self.path / name

    def outcome(self, stage: str) -> dict[str, Any] | None:
        """Return what a finished stage handed back; None if it has not finished."""
        path = self._stage_file(stage)
        return self.read_json(path.relative_to(self.path).as_posix()) if path.is_file() else None

    def finish(self, stage: str, outcome: Mapping[str, Any]) -> None:
        """Keep what a stage handed back; from now on the stage counts as finished."""
        self.write_json(f"stages/{stage}.json", outcome)

    def write_json(self, name: str, data: Any) -> None:
        """Write plain data as JSON; the file appears whole or not at all."""
        self.write_text(name, json.dumps(data, indent=1, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file; it appears whole or not at all, and is on the disk when this returns."""
        path = self.file(name)
        part = path.with_name(path.name + ".part")
        with storage_errors(path):
            try:
                with open(part, "w", encoding="utf-8") as stream:
                    stream.write(text)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(part, path)
            except OSError:
                part.unlink(missing_ok=True)
                raise

    def read_json(self, name: str) -> Any:
        """Read a JSON file of this run; raises `StorageError` with its name if it is broken."""
        return read_json(self.file(name), MAX_BYTES)

    def event(self, kind: str, **fields: Any) -> None:
        """Append one line to `events.jsonl`; it is on the disk when this returns."""
        line = json.dumps({"time": round(time.time(), 3), "event": kind, **fields}, default=str)
        path = self.file(EVENTS)
        with storage_errors(path), open(path, "a+b") as stream:
            if stream.tell() and not _ends_line(stream):
                line = "\n" + line  # a crash cut off the last one
            stream.write(f"{line}\n".encode())
            stream.flush()
            os.fsync(stream.fileno())

    def events(self) -> list[dict[str, Any]]:
        """Return the events so far; a last line that was cut off by a crash is left out."""
        path = self.file(EVENTS)
        if not path.is_file():
            return []
        out = []
        for line in read_text(path, MAX_BYTES).splitlines():
            with suppress(ValueError):
                out.append(json.loads(line))
        return out

    def _stage_file(self, stage: str) -> Path:
        return self.path / "stages" / f"{stage}.json"


def _ends_line(stream: BinaryIO) -> bool:
    stream.seek(-1, os.SEEK_END)
    return stream.read(1) == b"\n"


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors about `path` into a `StorageError` that says what to do."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"no space left on the device while writing {e.filename or path}; free some space"
            ) from e
        raise StorageError(f"{e.filename or path}: {e.strerror or e}") from e
