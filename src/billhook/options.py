"""Options of plug-ins: one rule per option gives the check, the message, the help and the failing tests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from billhook.errors import InputError, suggest


class Rule:
    """What values an option takes; `str(rule)` completes "… must be"."""

    def accepts(self, value: object) -> bool:
        """Return True if `value` is allowed."""
        raise NotImplementedError


class OneOf(Rule):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def accepts(self, value: object) -> bool:  # noqa: D102
        return isinstance(value, str) and value in self.words

    def __str__(self) -> str:
        return "one of " + ", ".join(repr(w) for w in self.words)


@dataclass(frozen=True)
class Number(Rule):
    """A finite number from `low` to `high`, both included; `integer` refuses fractions."""

    low: float
    high: float = math.inf
    integer: bool = False

    def accepts(self, value: object) -> bool:  # noqa: D102
        kinds = (int,) if self.integer else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool):
            return False
        # Comparing takes whole numbers of any size; `isfinite` does not.
        return self.low <= value <= self.high and abs(value) < math.inf

    def __str__(self) -> str:
        kind = "an integer" if self.integer else "a number"
        top = f" and at most {self.high:g}" if math.isfinite(self.high) else ""
        return f"{kind} of at least {self.low:g}{top}"


@dataclass(frozen=True)
class OrAuto(Number):
    """What `Number` accepts, or "auto"."""

    def accepts(self, value: object) -> bool:  # noqa: D102
        return value == "auto" or super().accepts(value)

    def __str__(self) -> str:
        return f"{super().__str__()}, or 'auto'"


class Above(Rule):
    """A finite number greater than `low`."""

    def __init__(self, low: float) -> None:
        self.low = low

    def accepts(self, value: object) -> bool:  # noqa: D102
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        return math.isfinite(value) and value > self.low

    def __str__(self) -> str:
        return f"a number above {self.low:g}"


class OrNone(Rule):
    """What another rule accepts, or None."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def accepts(self, value: object) -> bool:  # noqa: D102
        return value is None or self.rule.accepts(value)

    def __str__(self) -> str:
        return f"{self.rule}, or None"


class Words(Rule):
    """A tuple of words, out of `known` if that is not empty."""

    def __init__(self, *known: str) -> None:
        self.known = known

    def accepts(self, value: object) -> bool:  # noqa: D102
        if not isinstance(value, tuple) or not all(isinstance(v, str) for v in value):
            return False
        return not self.known or set(value) <= set(self.known)

    def __str__(self) -> str:
        return "a tuple of " + (f"words out of {', '.join(self.known)}" if self.known else "words")


class Text(Rule):
    """Any text but an empty one."""

    def accepts(self, value: object) -> bool:  # noqa: D102
        return isinstance(value, str) and bool(value)

    def __str__(self) -> str:
        return "a text"


class Flag(Rule):
    """True or False."""

    def accepts(self, value: object) -> bool:  # noqa: D102
        return isinstance(value, bool)

    def __str__(self) -> str:
        return "True or False"


class FlagOrAuto(Flag):
    """True, False or "auto"."""

    def accepts(self, value: object) -> bool:  # noqa: D102
        return value == "auto" or super().accepts(value)

    def __str__(self) -> str:
        return f"{super().__str__()}, or 'auto'"


def option(default: Any, rule: Rule, help: str) -> Any:
    """Return a dataclass field that `Configurable` checks against `rule`."""
    return field(default=default, metadata={"rule": rule, "help": help})


class Configurable:
    """Base of frozen dataclasses whose fields are options; checks every value that has a rule."""

    def __post_init__(self) -> None:
        for name, rule in rules(type(self)).items():
            _check(type(self).__name__, name, getattr(self, name), rule)


C = TypeVar("C", bound=Configurable)


def rules(kind: type[Configurable]) -> dict[str, Rule]:
    """Return the rule of every option of `kind`."""
    return {f.name: f.metadata["rule"] for f in fields(kind) if "rule" in f.metadata}  # type: ignore[arg-type]


def describe(kind: type[Configurable]) -> dict[str, str]:
    """Return one line for every option of `kind`: what it does, its range and its default."""
    return {
        f.name: f"{f.metadata['help']}; {f.metadata['rule']}, default {f.default!r}"
        for f in fields(kind)  # type: ignore[arg-type]
        if "rule" in f.metadata
    }


def configure(kind: type[C], options: Mapping[str, Any], *, what: str) -> C:
    """Return `kind(**options)`; `what` ("criterion 'l2'") starts the messages.

    Raises:
        InputError: for an option that `kind` does not have (lists close names) or a value out of range.
    """
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            hint = suggest(name, known) if known else "; it has no options"
            raise InputError(f"{what} has no option {name!r}{hint}")
    for name, rule in rules(kind).items():
        if name in options:
            _check(what, name, options[name], rule)
    return kind(**options)


def _check(what: str, name: str, value: object, rule: Rule) -> None:
    if not rule.accepts(value):
        raise InputError(f"{what}: option {name}={value!r} must be {rule}")
