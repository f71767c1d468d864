"""`billhook methods`: everything that can be named in a recipe, from the registries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from billhook.cli.options import Debug, Json, Quiet
from billhook.cli.terminal import Terminal


def methods(as_json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """List methods, sparse methods, patterns, allocators, runtimes, data sets, networks and fusions."""
    from billhook.report import methods_table

    tables = dict(_tables())
    shown: list[Any] = []
    for title, rows in tables.items():
        shown += [f"{title}:", methods_table([_row(r) for r in rows]), ""]
    Terminal(as_json, quiet).data(tables, *shown[:-1])


def _tables() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    from dataclasses import asdict

    from billhook.allocate import allocators
    from billhook.data import datasets
    from billhook.fuse import passes
    from billhook.measure import backends
    from billhook.methods import capabilities
    from billhook.methods._capabilities import pattern_capabilities, sparse_capabilities
    from billhook.models import models
    from billhook.registry import Registry

    yield "methods", [asdict(row) for row in capabilities()]
    yield "sparse methods", [asdict(row) for row in sparse_capabilities()]
    yield "patterns", [_without_training(asdict(row)) for row in pattern_capabilities()]
    others: dict[str, Registry[Any]] = {
        "allocators": allocators,
        "runtimes": backends,
        "data sets": datasets,
        "networks": models,
        "fusions": passes,
    }
    for title, registry in others.items():
        infos = [(name, registry.info(name)) for name in registry.names()]
        yield title, [{"name": n, "title": i.title, "source": i.source, "notes": i.notes} for n, i in infos]


def _without_training(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of what never learns from anything."""
    return {key: value for key, value in row.items() if key not in ("needs_data", "trains")}


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """Return what fits on a screen; JSON has everything."""
    shown = {key: value for key, value in row.items() if key not in ("tests", "notes")}
    if isinstance(options := shown.get("options"), dict):
        shown["options"] = ", ".join(options)
    return shown
