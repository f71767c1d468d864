"""`capabilities`: what can be chosen, as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from billhook.criteria import criteria
from billhook.graph.patterns import patterns
from billhook.methods import methods
from billhook.methods.sparse import sparse_methods
from billhook.options import Configurable, describe
from billhook.registry import Registry

K = TypeVar("K", bound=Configurable)


@dataclass(frozen=True)
class Capability:
    """One row.

    Attributes:
        name: What to write as `method`, `sparse.method` or in `pattern`.
        kind: "method", "criterion", "sparse method" or "pattern".
        title: What it does, in one line.
        source: Paper, or "billhook".
        needs_data: Learns from calibration or training data.
        trains: Changes weights while deciding.
        tests: File in the repository that tests it.
        notes: What a user should know.
        options: One line for every option.
    """

    name: str
    kind: str
    title: str
    source: str
    needs_data: bool
    trains: bool
    tests: str
    notes: str
    options: Mapping[str, str]


def capabilities() -> list[Capability]:
    """Return a row for every method and criterion, methods first, sorted by name."""
    return [*_rows(methods, "methods"), *_rows(criteria, "criteria")]


def sparse_capabilities() -> list[Capability]:
    """Return a row for every sparse method, sorted by name."""
    return _rows(sparse_methods, "methods/sparse")


def pattern_capabilities() -> list[Capability]:
    """Return a row for every pattern of weights, sorted by name."""
    return _rows(patterns, "sparse/patterns")


def _rows(registry: Registry[type[K]], folder: str) -> list[Capability]:
    rows = []
    for name in registry.names():
        info = registry.info(name)
        rows.append(
            Capability(
                name=name,
                kind=registry.kind,
                title=info.title,
                source=info.source,
                needs_data=info.needs_data,
                trains=info.trains,
                tests=f"tests/unit/{folder}/test_{name}.py",
                notes=info.notes,
                options=describe(registry.get(name)),
            )
        )
    return rows
