"""Values that the rules of options must refuse, derived from the rules themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from billhook.options import Configurable, Flag, Number, Rule, rules


def wrong_values(kind: type[Configurable]) -> Iterator[tuple[str, Any, Rule]]:
    """Yield (option, wrong value, its rule) for every option of `kind`."""
    for name, rule in rules(kind).items():
        wrong: list[Any] = [None, "no such word", [], {}]
        if isinstance(rule, Number):
            wrong += [rule.low - 1, float("nan"), float("inf"), True]
            wrong += [rule.high + 1] if rule.high < float("inf") else []
            wrong += [rule.low + 0.5] if rule.integer else []
        elif isinstance(rule, Flag):
            wrong += [0, 1, 1.5]
        else:
            wrong += [0, 1.5, True]
        for value in wrong:
            yield name, value, rule
