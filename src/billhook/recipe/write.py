"""Recipes as TOML text: the standard library reads TOML but does not write it.

Our schema needs tables of scalars, lists and inline tables only; that is thirty lines, no dependency.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from billhook.errors import StorageError
from billhook.recipe.schema import Recipe

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(recipe: Recipe) -> str:
    """Return the recipe with all its values, defaults included; `read` gives the same recipe back."""
    data = recipe.model_dump(mode="json", exclude_none=True)
    tables = {key: value for key, value in data.items() if isinstance(value, dict)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in data.items() if key not in tables]
    for name, table in tables.items():
        lines += ["", f"[{_key(name)}]", *(f"{_key(key)} = {_value(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def save(recipe: Recipe, path: Path) -> None:
    """Write the recipe; the file appears whole or not at all.

    Raises:
        StorageError: if it cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(to_toml(recipe), encoding="utf-8")
        os.replace(part, path)
    except OSError as e:
        raise StorageError(f"cannot write recipe {path}: {e.strerror or e}") from None


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _text(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    return f"[{', '.join(_value(v) for v in value)}]"


def _text(text: str) -> str:
    # JSON's escapes are TOML's, but TOML also wants DEL escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
