"""Which facts make a study that of one search: what says that another search must not go on with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from billhook.errors import InputError, StorageError
from billhook.json_record import encode

FORMAT = "billhook.study/1"

# With another value of one of these, a search asks for other candidates or judges them differently.
_IDENTITY = ("space", "model", "method", "options", "objectives", "metric", "seed", "key", "budget")
_WORDS = {"key": "way of judging", "space": "search space", "model": "network", "method": "searcher"}
_LONGEST_NAME = 500  # Optuna's column takes 512
_LONGEST = 60  # characters of a value in a message


def check_name(name: str) -> None:
    """Raise `InputError` if a study cannot have this name."""
    if not 0 < len(name) <= _LONGEST_NAME:
        raise InputError(f"the name of a study has 1 to {_LONGEST_NAME} characters, this one {len(name)}")


def as_facts(facts: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the facts as plain data, with their format; raises `StorageError` for what JSON cannot hold."""
    return {"format": FORMAT, **{k: encode(v, f"{where}: {k}") for k, v in facts.items()}}


def check_facts(facts: Mapping[str, Any], where: str) -> None:
    """Raise `StorageError` if a study was not made by billhook, or by one that wrote another format."""
    found = facts.get("format")
    if found == FORMAT:
        return
    if found is None:
        raise StorageError(f"{where} was not made by billhook; give another file or another name")
    raise StorageError(
        f"{where} has format {found!r}, this billhook reads {FORMAT!r}; use the one that made it"
    )


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return what differs between the facts of a study and those of a search, as clauses for a message."""
    found = []
    for name in _IDENTITY:
        if name in there and name in here and there[name] != here[name]:
            word = _WORDS.get(name, name)
            detail = _spaces(there, here) if name == "space" else ""
            detail = detail or f"{_show(there[name])} there, {_show(here[name])} here"
            found.append(f"another {word} ({detail})")
    return found


def _spaces(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Say what differs between two spaces: numbers of genes, the first other gene, or only the network."""
    theirs, ours = there.get("genes", []), here.get("genes", [])
    if len(theirs) != len(ours):
        return f"{len(theirs)} genes there, {len(ours)} here"
    for a, b in zip(theirs, ours, strict=True):
        if a["name"] != b["name"]:
            return f"gene {a['name']!r} there, {b['name']!r} here"
        if a["values"] != b["values"]:
            return f"{a['name']!r} has {_show(a['values'])} there, {_show(b['values'])} here"
    return "the same genes of another network"


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
