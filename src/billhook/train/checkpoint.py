"""Checkpoints: one safetensors file with all that a run needs to go on, written whole or not at all."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from billhook.errors import InputError, StorageError
from billhook.train.state_tree import byte_view, join, own_storage, split

FILE = "checkpoint.safetensors"
FORMAT = "billhook.checkpoint/1"


def save_checkpoint(directory: Path, state: Mapping[str, Any]) -> None:
    """Write `state` to `directory`; until the new file is complete, the old one stays.

    Raises:
        StorageError: if the file cannot be written (full disk, no permission).
        InputError: if `state` holds something that is neither tensor nor plain data.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(split(dict(state), "state", tensors))
    tensors = own_storage(tensors)
    path = directory / FILE
    part = directory / (FILE + ".part")
    metadata = {"format": FORMAT, "state": tree, "crc32": str(_checksum(tree, tensors))}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part, metadata=metadata)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, SafetensorError) as e:
        with suppress(OSError):
            part.unlink()
        kept = "; the checkpoint before this one is kept" if path.exists() else ""
        raise StorageError(f"{path}: checkpoint cannot be written: {e}{kept}") from None


def load_checkpoint(directory: Path) -> dict[str, Any] | None:
    """Return what `save_checkpoint` wrote, None if there is no checkpoint.

    Raises:
        StorageError: if the file is truncated, altered or not a checkpoint; names it.
    """
    path = directory / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if metadata.get("format") != FORMAT:
            raise ValueError(f"expected format {FORMAT!r}, found {metadata.get('format')!r}")
        if metadata.get("crc32") != str(_checksum(metadata["state"], tensors)):
            raise ValueError("the checksum does not fit")
        state = join(json.loads(metadata["state"]), tensors)
        if not isinstance(state, dict):
            raise ValueError("the state is no table")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise StorageError(
            f"{path}: checkpoint cannot be read: {e}; delete it to start from the beginning"
        ) from None
    return state


def require_free(directory: Path) -> None:
    """Refuse to begin a new run over an old one.

    Raises:
        InputError: if `directory` holds a checkpoint.
    """
    if (directory / FILE).exists():
        raise InputError(f"{directory / FILE} exists; resume it with resume=True or choose another directory")


def require_same_run(directory: Path, saved: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """Refuse to resume a run that was set up differently.

    Raises:
        InputError: names every setting that differs, with both values.
    """
    names = sorted({*saved, *present})
    differences = [
        f"{name} was {saved.get(name)!r} and is now {present.get(name)!r}"
        for name in names
        if saved.get(name) != present.get(name)
    ]
    if differences:
        raise InputError(
            f"{directory / FILE} belongs to another run: {'; '.join(differences)}. "
            "Use the same settings, or another directory for a new run"
        )


class Cadence:
    """When the next checkpoint is due: after some steps, some seconds, or whichever comes first."""

    def __init__(self, steps: int | None, seconds: float | None) -> None:
        self.steps = steps
        self.seconds = seconds
        self._last = time.monotonic()

    def due(self, step: int) -> bool:
        """Return True if a checkpoint should be written after `step` steps."""
        if self.steps is not None and step % self.steps == 0:
            return True
        return self.seconds is not None and time.monotonic() - self._last >= self.seconds

    def done(self) -> None:
        """Note that a checkpoint was written."""
        self._last = time.monotonic()


def _checksum(tree: str, tensors: Mapping[str, Tensor]) -> int:
    value = zlib.crc32(tree.encode())
    for name in sorted(tensors):
        value = zlib.crc32(byte_view(tensors[name]), value)
    return value
