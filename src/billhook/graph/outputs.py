"""Names of what a network returns."""

from __future__ import annotations

from typing import Any


def output_name(path: tuple[Any, ...]) -> str:
    """Return a name for a leaf of the results by its place: key, field name or number, joined by "_".

    A single tensor is called "output"; names that would begin with a digit begin with "output_".
    """
    place = "_".join(_word(key) for key in path)
    return "output" if not place else f"output_{place}" if place[0].isdigit() else place


def _word(key: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
