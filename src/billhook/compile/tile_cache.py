"""Cuts that were found by timing, kept on disk: a network is cut the same again on the same machine."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from billhook import __version__
from billhook.compile.compiler import Compiled
from billhook.compile.session import EngineSession
from billhook.compile.tiles import ROWS, Tile
from billhook.compile.tune import tune
from billhook.errors import StorageError
from billhook.json_record import read_json, write_json
from billhook.measure.environment import environment

log = logging.getLogger("billhook")

MAX_BYTES = 2**20  # a network of 10,000 layers is smaller


def tuned(compiled: Compiled, *, threads: int = 1, isa: str = "best") -> dict[str, Tile]:
    """Return the fastest cuts, from the cache or by timing; see `tune`.

    What is on the disk counts for one version of billhook, one processor, one instruction set and number of
    threads, and exactly this network, weights included. A file that is damaged or not ours is not used.
    """
    with EngineSession(compiled.file, threads, isa) as session:
        conditions = [
            __version__,
            environment()["cpu"],
            session.isa,
            threads,
            hashlib.sha256(compiled.file).hexdigest(),
        ]
    key = hashlib.sha256(json.dumps(conditions).encode()).hexdigest()[:32]
    path = folder() / f"{key}.json"
    known = _read(path)
    if known is None:
        known = tune(compiled.network, threads=threads, isa=isa)
        _write(path, known)
    return known


def folder() -> Path:
    """Return where the cuts are kept: $XDG_CACHE_HOME/billhook/tiles, or ~/.cache/billhook/tiles."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "billhook" / "tiles"


def _write(path: Path, tiles: Mapping[str, Tile]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {name: [tile.rows, tile.panel] for name, tile in tiles.items()})
    except (OSError, StorageError) as e:
        log.info("cuts are not kept: %s", e)  # the next time takes as long, and nothing else


def _read(path: Path) -> dict[str, Tile] | None:
    try:
        found = read_json(path, MAX_BYTES)
    except StorageError:
        return None
    if not isinstance(found, Mapping):
        return None
    tiles = {}
    for name, cut in found.items():
        if not (isinstance(cut, list) and len(cut) == 2 and all(type(n) is int for n in cut)):
            return None
        rows, panel = cut
        if rows not in ROWS or not 1 <= panel < 2**31:
            return None
        tiles[str(name)] = Tile(rows, panel)
    return tiles
