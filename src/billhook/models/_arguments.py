"""Arguments of factories: read from the command line, checked against the signature, passed on."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from typing import Any

from torch import nn

from billhook.errors import InputError, NameNotFoundError
from billhook.models._registry import models


def build(name: str, **arguments: Any) -> nn.Module:
    """Return a new network with random weights.

    Args:
        name: Name in the registry, e.g. "resnet-20".
        arguments: Arguments of its factory, e.g. `width=32, in_channels=1`; see `signature(name)`.
    Raises:
        NameNotFoundError: if there is no such network or no such argument; lists close names.
        InputError: if an argument has a value that cannot be used.
    """
    known = signature(name)
    for argument in arguments:
        if argument not in known:
            raise NameNotFoundError(f"argument of {name}", argument, known)
    return models.get(name)(**arguments)


def signature(name: str) -> dict[str, Any]:
    """Return the arguments of the network called `name` with their defaults."""
    parameters = inspect.signature(models.get(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def parse_arguments(items: Iterable[str]) -> dict[str, Any]:
    """Return {"width": 32, "shortcut": "B"} for ["width=32", "shortcut=B"].

    Values are Python literals (numbers, lists, True, None, quoted text); anything else is text.
    Nothing is evaluated.

    Raises:
        InputError: if an item is not name=value or a name comes twice.
    """
    found: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name.isidentifier():
            raise InputError(
                f"cannot read the model argument {item!r}; write it as name=value, e.g. width=32"
            )
        if name in found:
            raise InputError(f"the model argument {name!r} is given twice")
        try:
            found[name] = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found[name] = text.strip()
    return found
