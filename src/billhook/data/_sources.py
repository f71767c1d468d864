"""Where data sets are looked for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from billhook.errors import DataError

ENVIRONMENT_VARIABLE = "BILLHOOK_DATA"


@dataclass(frozen=True)
class DataOptions:
    """What a user may say about data; see `billhook.data.load`."""

    data_dir: Path | None = None
    fetch: bool = True
    image_size: int = 224
    workers: int = 0


def cache_dir() -> Path:
    """Return the folder for fetched data, in the user's cache; it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "billhook" / "data"


def roots(options: DataOptions, *system: Path) -> list[Path]:
    """Return the folders to search, best first: --data-dir, environment, `system`, cache, ./data.

    Raises:
        DataError: if a folder that the user named does not exist.
    """
    named = []
    if options.data_dir is not None:
        named.append(("the data folder", options.data_dir))
    if os.environ.get(ENVIRONMENT_VARIABLE):
        folder = Path(os.environ[ENVIRONMENT_VARIABLE]).expanduser()
        named.append((f"the folder in {ENVIRONMENT_VARIABLE}", folder))
    for what, folder in named:
        if not folder.is_dir():
            raise DataError(f"{what} {str(folder)!r} does not exist; correct the path or leave it out")
    return [*(folder for _, folder in named), *system, cache_dir(), Path("data")]
