"""From a TOML file, from options of a command line, or from both, to a checked `Recipe`."""

from __future__ import annotations

import copy
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from billhook.errors import RecipeError
from billhook.recipe.locate import KeyPath, key_lines, line_of
from billhook.recipe.problems import Problem, describe
from billhook.recipe.schema import Recipe

MAX_BYTES = 2**20
PATHS: tuple[KeyPath, ...] = (
    ("model", "weights"),
    ("data", "dir"),
    ("prune", "options", "plan"),
    ("search", "study"),
)


@dataclass(frozen=True)
class Change:
    """A value that replaces what a recipe says, e.g. from a command-line option.

    Attributes:
        path: Where in the recipe, e.g. ("finetune", "epochs").
        value: Plain data.
        source: How an error message names it, e.g. "--epochs".
    """

    path: tuple[str, ...]
    value: Any
    source: str


def read(path: Path, changes: Sequence[Change] = ()) -> Recipe:
    """Return the recipe in a TOML file, with `changes` applied.

    Relative paths in the file are relative to the file's folder; those in `changes` to the current one.

    Raises:
        RecipeError: lists every problem, each as "file:line: message".
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        text = content.decode("utf-8")
    except OSError as e:
        raise RecipeError(f"{path}: cannot read this recipe: {e.strerror or e}") from None
    except UnicodeDecodeError as e:
        raise RecipeError(f"{path}: not a UTF-8 text ({e.reason} at byte {e.start})") from None
    if len(content) > MAX_BYTES:
        raise RecipeError(f"{path}: larger than {MAX_BYTES} bytes; this is no recipe")
    return parse(text, str(path), changes, folder=path.parent)


def parse(
    text: str, name: str = "recipe", changes: Sequence[Change] = (), *, folder: Path = Path()
) -> Recipe:
    """Return the recipe in a TOML text; `name` stands for the file in messages. See `read`."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise RecipeError(_syntax(name, str(e))) from None
    except RecursionError:
        raise RecipeError(f"{name}:1: nested too deeply") from None
    return _check(_with_folder(data, folder), changes, name, key_lines(text))


def build(changes: Sequence[Change]) -> Recipe:
    """Return a recipe made of `changes` only. See `read`."""
    return _check({}, changes, "recipe", {})


def from_target(target: str, changes: Sequence[Change] = ()) -> Recipe:
    """Return the recipe in the file `target` if it ends in ".toml", else one for the network `target`."""
    if target.endswith(".toml"):
        return read(Path(target), changes)
    return build([Change(("model", "name"), target, "MODEL"), *changes])


def _check(
    data: dict[str, Any], changes: Sequence[Change], name: str, lines: Mapping[KeyPath, int]
) -> Recipe:
    data = copy.deepcopy(data)
    sources: dict[KeyPath, str] = {}
    for change in changes:
        _put(data, change)
        sources[change.path] = change.source

    try:
        return Recipe.model_validate(_with_folder(data, Path.cwd()))
    except ValidationError as e:
        problems = describe(e)
    placed = sorted(((_place(p.path, sources, lines), p) for p in problems), key=lambda pair: pair[0])
    raise RecipeError("\n".join(_write(place, problem, name) for place, problem in placed))


_Place = tuple[int, str]  # a line of the file, or 0 and the name of an option


def _place(path: KeyPath, sources: Mapping[KeyPath, str], lines: Mapping[KeyPath, int]) -> _Place:
    for end in range(len(path), 0, -1):
        if path[:end] in sources:
            return 0, sources[path[:end]]
    return (line_of(lines, path), "") if lines else (0, "")


def _write(place: _Place, problem: Problem, file: str) -> str:
    line, option = place
    if option:
        return f"{option}: {problem.text}"
    named = f"{problem.name}: {problem.text}" if problem.name else problem.text
    return f"{file}:{line}: {named}" if line else f"{file}: {named}"


def _put(data: dict[str, Any], change: Change) -> None:
    table = data
    for key in change.path[:-1]:
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):  # the file has a plain value here; the schema will say so
            return
        table = inner
    table[change.path[-1]] = change.value


def _with_folder(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return `data` with relative paths made absolute, so that a recipe means the same everywhere."""
    data = copy.deepcopy(data)
    for *tables, key in PATHS:
        value: Any = data
        for table in tables:
            value = value.get(table) if isinstance(value, dict) else None
        if isinstance(value, dict) and isinstance(value.get(key), str) and value[key]:
            value[key] = _absolute(folder, value[key])
    model = data.get("model")
    if isinstance(model, dict) and isinstance(model.get("name"), str):
        file, colon, name = model["name"].rpartition(":")
        if colon and file.endswith(".py"):
            model["name"] = f"{_absolute(folder, file)}:{name}"
    return data


def _absolute(folder: Path, path: str) -> str:
    return path if "://" in path else os.path.abspath(folder / Path(path).expanduser())


def _syntax(name: str, message: str) -> str:
    place = re.search(r" \(at line (\d+), column \d+\)$", message)
    line = place[1] if place else "1"
    return f"{name}:{line}: not valid TOML: {message[: place.start()] if place else message}"
