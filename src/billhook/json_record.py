"""Frozen dataclasses to JSON files and back, with an error that names the file and the entry.

The fields of a dataclass are its schema: `encode` writes them, `decode` checks what it reads against their
types. Allowed types: `str`, `int`, `float`, `bool`, `X | None`, `Literal`, `tuple[X, ...]`,
`Mapping[str, X]`, `Any`, and other such dataclasses. Unknown entries are errors, and so are NaN and infinity,
which JSON does not have.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import types
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from billhook.errors import StorageError, suggest

T = TypeVar("T")

MAX_DEPTH = 50

_WORDS = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false"}


def encode(value: Any, where: str = "record") -> Any:
    """Return plain data for JSON: dataclasses and mappings become dicts, tuples become lists.

    Args:
        value: A record, or anything that may be a field of one.
        where: How an error message calls `value`.
    Raises:
        StorageError: if JSON cannot hold the value; names the entry.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value)]
        return {name: encode(getattr(value, name), f"{where}.{name}") for name in names}
    if isinstance(value, Mapping):
        return {str(k): encode(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise StorageError(f"{where}: cannot write {value!r} ({type(value).__name__}) as JSON")


def decode(kind: type[T], data: Any, where: str) -> T:
    """Return the record of type `kind` that `data` describes; `where` starts the error message.

    Raises:
        StorageError: if an entry is missing, unknown or of the wrong type; names it.
    """
    record: T = _value(kind, data, where)
    return record


def write_json(path: Path, data: Any) -> None:
    """Write plain data; the file appears whole or not at all.

    Raises:
        StorageError: if the file cannot be written (full disk, no permission).
    """
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as e:
        part.unlink(missing_ok=True)
        raise StorageError(f"{path}: cannot be written: {e.strerror or e}") from None


def read_text(path: Path, max_bytes: int) -> str:
    """Return the text of a file of at most `max_bytes`; raises `StorageError` with the file's name."""
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise StorageError(f"{path}: larger than {max_bytes} bytes; this is not a file billhook wrote")
        return content.decode("utf-8")
    except OSError as e:
        raise StorageError(f"{path}: cannot be read: {e.strerror or e}") from None
    except UnicodeDecodeError as e:
        raise StorageError(f"{path}: is not UTF-8 text ({e.reason} at byte {e.start})") from None


def read_json(path: Path, max_bytes: int) -> Any:
    """Return the plain data in a JSON file; raises `StorageError` with the file's name."""
    text = read_text(path, max_bytes)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise StorageError(f"{path}: is not valid JSON: {e}") from None
    if _deeper_than(data, MAX_DEPTH):
        raise StorageError(
            f"{path}: nested deeper than {MAX_DEPTH} levels; this is not a file billhook wrote"
        )
    return data


def _deeper_than(data: Any, levels: int) -> bool:
    """Tell if containers in `data` are nested deeper than `levels`, so that readers may recurse."""
    layer = [data]
    for _ in range(levels + 1):
        containers = [v.values() if isinstance(v, dict) else v for v in layer if isinstance(v, (dict, list))]
        layer = [inner for container in containers for inner in container]
    return bool(layer)


def _value(hint: Any, data: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return data
    if dataclasses.is_dataclass(hint):
        return _record(hint, data, where)
    if origin in (Union, types.UnionType):  # only `X | None` is allowed
        return None if data is None else _value(next(a for a in args if a is not type(None)), data, where)
    if origin is Literal:
        if data not in args:
            raise StorageError(f"{where}: expected one of {', '.join(map(str, args))}, found {_show(data)}")
        return data
    if origin is tuple:
        if not isinstance(data, list):
            raise StorageError(f"{where}: expected a list, found {_show(data)}")
        return tuple(_value(args[0], v, f"{where}[{i}]") for i, v in enumerate(data))
    if origin is Mapping:
        if not isinstance(data, dict):
            raise StorageError(f"{where}: expected a table of names, found {_show(data)}")
        return {k: _value(args[1], v, f"{where}.{k}") for k, v in data.items()}
    return _scalar(hint, data, where)


def _scalar(hint: Any, data: Any, where: str) -> Any:
    if hint is float and isinstance(data, (int, float)) and not isinstance(data, bool):
        try:
            number = float(data)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    elif isinstance(data, hint) and (hint is bool or not isinstance(data, bool)):
        return data
    raise StorageError(f"{where}: expected {_WORDS[hint]}, found {_show(data)}")


def _record(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise StorageError(f"{where}: expected a table of names, found {_show(data)}")
    hints = _hints(kind)
    fields = [f for f in dataclasses.fields(kind) if f.init]
    for name in data:
        if name not in hints:
            raise StorageError(f"{where}: unknown entry {name!r}{suggest(name, hints)}")
    for field in fields:
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in data:
            raise StorageError(f"{where}: entry {field.name!r} is missing")
    values = {name: _value(hints[name], v, f"{where}.{name}") for name, v in data.items()}
    try:
        return kind(**values)
    except StorageError as e:  # the record's own checks do not know where it stands
        raise StorageError(f"{where}: {e}") from None


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


def _show(data: Any) -> str:
    text = repr(data) if isinstance(data, (str, int, float, bool, type(None))) else f"a {type(data).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
