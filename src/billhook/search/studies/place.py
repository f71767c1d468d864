"""`Place`: where studies are kept. A file, or a PostgreSQL server that several machines share."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlsplit

from billhook.errors import InputError
from billhook.search.requirements import require

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql", "postgres")
_DRIVER = "pg8000"


@dataclass(frozen=True)
class Place:
    """Where studies are kept.

    Attributes:
        label: What messages call it; never has a password.
        url: For SQLAlchemy, with a driver; that of a file only says which data base it is.
        path: The file; None for a server.
    """

    label: str
    url: str
    path: Path | None

    @staticmethod
    def of(place: str | Path) -> Place:
        """Return the place that a path or a URL names.

        Args:
            place: Path of a SQLite file; "sqlite:///path"; or "postgresql://user@host:port/name", also with
                the driver to use, "postgresql+psycopg://…".
        Raises:
            InputError: if it is neither, or the folder of the file does not exist.
            MissingExtraError: if the driver for PostgreSQL is not installed.
        """
        text = os.fspath(place)
        if isinstance(place, Path) or "://" not in text:
            return _file(text)
        if text.startswith(_SQLITE) and "?" not in text:
            return _file(text.removeprefix(_SQLITE))
        return _server(text)

    @property
    def empty(self) -> bool:
        """True for a file that does not exist, or has nothing in it."""
        return self.path is not None and not (self.path.exists() and self.path.stat().st_size)

    def folder(self, study: str) -> Path:
        """Return the folder for what belongs to a study but not into a data base; it may not exist.

        Beside a file, it is "FILE.d/STUDY"; for a server in the user's cache.
        """
        name = quote(study, safe="") or "_"
        if name.strip(".") == "":
            name = name.replace(".", "%2E")
        if self.path is not None:
            return self.path.with_name(self.path.name + ".d") / name
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "billhook" / "studies" / hashlib.sha256(self.label.encode()).hexdigest()[:16] / name

    def __str__(self) -> str:
        return self.label


def _file(text: str) -> Place:
    path = Path(text).expanduser()
    if not text or path.is_dir():
        raise InputError(f"{text!r} names no file: give the path of a study, e.g. search.db")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it, or name another file")
    return Place(str(path), "sqlite:///", path.absolute())


def _server(text: str) -> Place:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as e:
        raise InputError(f"the URL of the study cannot be read: {e}") from None
    kind, _, driver = parts.scheme.partition("+")
    if kind not in _POSTGRES:
        raise InputError(
            f"a study cannot be kept in {parts.scheme}://…: give the path of a file, sqlite:///FILE or "
            "postgresql://USER@HOST:PORT/NAME"
        )
    if not host or not parts.path.strip("/"):
        raise InputError(
            f"{kind}://… lacks a host or the name of a data base: give postgresql://USER@HOST:PORT/NAME"
        )
    if not driver:
        require(_DRIVER, what="a study in PostgreSQL")
    elif find_spec(driver) is None:
        raise InputError(f"the driver {driver!r} is not installed; leave it out to use {_DRIVER}")
    user = f"{parts.username}@" if parts.username else ""
    label = f"postgresql://{user}{host}:{port or 5432}{parts.path}"
    rest = text.partition("://")[2]
    return Place(label, f"postgresql+{driver or _DRIVER}://{rest}", None)
