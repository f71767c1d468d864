"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from billhook.errors import StorageError


@contextmanager
def new_folder(directory: str | Path) -> Iterator[Path]:
    """Yield an empty folder which takes the name `directory` when the block ends without an error.

    Raises:
        StorageError: if `directory` exists and is not empty, or cannot be written; an OSError of the block
            counts as that.
    """
    target = Path(directory)
    _refuse_existing(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.part-", dir=target.parent))
    except OSError as e:
        raise StorageError(f"cannot write {target}: {e.strerror or e}") from None
    try:
        yield part
        part.chmod(0o755)  # mkdtemp makes it private
        _refuse_existing(target)
        os.replace(part, target)
    except OSError as e:
        raise StorageError(f"cannot write {target}: {e.strerror or e}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _refuse_existing(target: Path) -> None:
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise StorageError(f"{target} exists and is never overwritten; choose another folder or delete it")
