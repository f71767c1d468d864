"""Values that the rules of options must refuse, derived from the rules themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from billhook.options import Above, Configurable, Flag, Number, OrNone, Rule, rules


def wrong_values(kind: type[Configurable]) -> Iterator[tuple[str, Any, Rule]]:
    """Yield (option, wrong value, its rule) for every option of `kind`."""
    for name, rule in rules(kind).items():
        wrong: list[Any] = ["no such word", [], {}]
        wrong += [] if isinstance(rule, OrNone) else [None]
        inner = rule.rule if isinstance(rule, OrNone) else rule
        if isinstance(inner, Number):
            wrong += [inner.low - 1, float("nan"), float("inf"), True]
            wrong += [inner.high + 1] if inner.high < float("inf") else []
            wrong += [inner.low + 0.5] if inner.integer else []
        elif isinstance(inner, Above):
            wrong += [inner.low, inner.low - 1, float("nan"), float("inf"), True]
        elif isinstance(rule, Flag):
            wrong += [0, 1, 1.5]
        else:
            wrong += [0, 1.5, True]
        for value in wrong:
            yield name, value, rule
