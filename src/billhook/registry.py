"""Plug-ins by name: one file in a package is one entry, and the file's name is the name.

A registry lists its entries without importing them, so that `billhook methods` and shell
completion stay fast. Files whose name starts with an underscore are not entries; a trailing
underscore (`global_.py`) only avoids a Python keyword. A registry with `dashes` writes its names
the way published networks and data sets are written: `resnet_20.py` is "resnet-20".
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from types import ModuleType
from typing import Generic, TypeVar

from billhook.errors import InputError, NameNotFoundError

T = TypeVar("T")


@dataclass(frozen=True)
class Info:
    """What listing, help, docs and tests need to know about an entry.

    Attributes:
        title: One line for tables.
        source: Where the idea comes from (paper, year, arXiv id) or "billhook".
        needs_data: True if calibration or training data is needed.
        trains: True if it trains the network while deciding.
        notes: Anything a user should know; empty if nothing.
    """

    title: str
    source: str = "billhook"
    needs_data: bool = False
    trains: bool = False
    notes: str = ""


class Registry(Generic[T]):
    """Entries of one kind, found in `package`; each module has `INFO` and `ENTRY`.

    Args:
        kind: Word for messages, e.g. "criterion".
        package: Dotted name of the package that holds the entries.
        dashes: Write "-" for "_" in names; names with either are understood.
    """

    def __init__(self, kind: str, package: str, *, dashes: bool = False) -> None:
        self.kind = kind
        self.package = package
        self.dashes = dashes
        self._added: dict[str, tuple[T, Info]] = {}

    def names(self) -> list[str]:
        """Return all names, sorted, without importing the entries."""
        return sorted({*self._files(), *self._added})

    def get(self, name: str) -> T:
        """Return the entry called `name`; raises `NameNotFoundError` with close names."""
        if name in self._added:
            return self._added[name][0]
        entry: T = self._module(name).ENTRY
        return entry

    def info(self, name: str) -> Info:
        """Return the record of the entry called `name`."""
        if name in self._added:
            return self._added[name][1]
        info: Info = self._module(name).INFO
        return info

    def add(self, name: str, entry: T, info: Info) -> None:
        """Add an entry from outside the package; a name that is taken is an error."""
        if name in self.names():
            raise InputError(f"{self.kind} {name!r} exists already; choose another name")
        self._added[name] = (entry, info)

    def remove(self, name: str) -> None:
        """Take back an entry that `add` put in; raises `NameNotFoundError`."""
        if name not in self._added:
            raise NameNotFoundError(f"added {self.kind}", name, self._added)
        del self._added[name]

    def _module(self, name: str) -> ModuleType:
        files = self._files()
        if self.dashes:
            name = name.replace("_", "-")
        if name not in files:
            raise NameNotFoundError(self.kind, name, self.names())
        return importlib.import_module(f"{self.package}.{files[name]}")

    def _files(self) -> dict[str, str]:
        """Return the module that holds each name."""
        path = importlib.import_module(self.package).__path__
        files = [m.name for m in pkgutil.iter_modules(path) if not (m.ispkg or m.name.startswith("_"))]
        return {f.rstrip("_").replace("_", "-") if self.dashes else f.rstrip("_"): f for f in files}
