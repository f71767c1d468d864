"""What is wrong with a recipe, in words: every problem at once, each with the place where it was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from billhook.errors import suggest
from billhook.recipe.locate import KeyPath
from billhook.recipe.schema import Recipe


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: the key path, its name for people ("" if `text` has it), and a sentence."""

    path: KeyPath
    name: str
    text: str


def describe(error: ValidationError) -> list[Problem]:
    """Return every problem once, in the order of the schema."""
    problems: dict[Problem, None] = {}  # each type that a value could have complains separately
    for item in error.errors(include_url=False):
        problems[_problem(_in_text(item["loc"]), item)] = None
    return list(problems)


def _problem(path: KeyPath, item: Any) -> Problem:
    key = str(path[-1]) if path else "recipe"
    table = ".".join(str(p) for p in path[:-1])
    in_table = f" in [{table}]" if table else ""
    if item["type"] == "extra_forbidden":
        kind = "table" if isinstance(item["input"], dict) and not table else "key"
        return Problem(path, "", f"unknown {kind} {key!r}{in_table}{suggest(key, _known_keys(path[:-1]))}")
    if item["type"] == "missing":
        return Problem(path, "", f"{key!r} is missing{in_table}")
    text = item["msg"].removeprefix("Value error, ")
    if item["type"] != "value_error":  # our own messages quote the value where it helps
        text = f"{text[:1].lower()}{text[1:]}, found {_show(item['input'])}"
    return Problem(path, ".".join(str(p) for p in path), text)


def _known_keys(table: Sequence[str | int]) -> list[str]:
    model: type[BaseModel] = Recipe
    for key in table:
        field = model.model_fields.get(str(key))
        inner = None if field is None else _model_in(field.annotation)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model in `Model` or `Model | None`."""
    options = [annotation, *getattr(annotation, "__args__", ())]
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)


def _in_text(loc: tuple[str | int, ...]) -> KeyPath:
    """Leave out what pydantic adds for unions ("float", "str", "lax-or-strict[…]") and dict keys."""
    path: list[str | int] = []
    known: Any = Recipe
    for part in loc:
        if isinstance(known, type) and issubclass(known, BaseModel) and isinstance(part, str):
            path.append(part)
            field = known.model_fields.get(part)
            known = None if field is None else (_model_in(field.annotation) or field.annotation)
        elif isinstance(part, int):
            path.append(part)
    return tuple(path)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
