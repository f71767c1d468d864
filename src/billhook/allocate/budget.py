"""`Budget`: upper bounds on named metrics."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

from billhook.errors import InputError, suggest
from billhook.results import Cost
from billhook.units import format_bytes, format_count, format_seconds, parse_quantity, parse_ratio

METRICS: dict[str, str] = {"macs": "count", "params": "count", "size": "bytes", "latency": "seconds"}


@dataclass(frozen=True)
class Bound:
    """One upper bound: a fraction of the original (`relative`) or a value in base units."""

    value: float
    relative: bool

    def absolute(self, original: float) -> float:
        """Return the bound in base units, given the original network's value."""
        return self.value * original if self.relative else self.value


class Budget:
    """Upper bounds that must hold together.

    A number up to 1 or a text such as "50%" is relative to the original network; a larger number or
    a text with a unit is absolute: `Budget(macs=0.5, params="1M", size="2MB", latency="8ms")`.
    Numbers are in base units: MACs, parameters, bytes, seconds.

    Raises:
        InputError: for an unknown metric, an unreadable or non-positive bound, or no bound at all.
    """

    def __init__(
        self,
        *,
        macs: float | str | None = None,
        params: float | str | None = None,
        size: float | str | None = None,
        latency: float | str | None = None,
    ) -> None:
        given = {"macs": macs, "params": params, "size": size, "latency": latency}
        bounds = {m: _bound(m, v) for m, v in given.items() if v is not None}
        if not bounds:
            raise InputError(f"a budget needs at least one bound; metrics: {', '.join(METRICS)}")
        self._bounds = bounds

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Return the budget written as "latency=0.5,params=1M"."""
        values: dict[str, str] = {}
        for part in filter(None, (p.strip() for p in text.split(","))):
            metric, equals, value = part.partition("=")
            if not equals:
                raise InputError(f"cannot read budget {part!r}; write METRIC=BOUND, e.g. latency=0.5")
            values[metric.strip()] = value.strip()
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, data: Mapping[str, float | str]) -> Budget:
        """Return the budget with these bounds; raises `InputError` for unknown metrics."""
        for metric in data:
            if metric not in METRICS:
                raise InputError(f"unknown budget metric {metric!r}{suggest(metric, METRICS)}")
        return cls(**data)

    def of(self, original: Cost, pruned: Cost) -> Budget:
        """Return the same bounds for a network that is pruned in the place of the original.

        Fractions stay fractions of the original: they become absolute where the other network costs
        something else.
        """
        before, other = original.bounded(), pruned.bounded()
        same = copy.copy(self)
        same._bounds = {
            m: Bound(b.absolute(before[m]), relative=False) if before.get(m) != other.get(m) else b
            for m, b in self._bounds.items()
        }
        return same

    def allows(self, cost: Cost, original: Cost) -> bool:
        """Return True if every bound that follows from shapes holds; latency has to be measured."""
        before, after = original.bounded(), cost.bounded()
        return all(after[m] <= b.absolute(before[m]) for m, b in self._bounds.items() if m in after)

    @property
    def bounds(self) -> Mapping[str, Bound]:
        """The bounds by metric."""
        return dict(self._bounds)

    def to_dict(self) -> dict[str, float | str]:
        """Return plain data that `from_dict` reads back."""
        units = {"count": "", "bytes": "B", "seconds": "s"}
        return {
            m: b.value if b.relative else f"{b.value!r}{units[METRICS[m]]}" for m, b in self._bounds.items()
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Budget) and self._bounds == other._bounds

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._bounds)))

    def __repr__(self) -> str:
        return f"Budget({', '.join(f'{m}={v!r}' for m, v in self.to_dict().items())})"

    def __str__(self) -> str:
        parts = [
            f"{m} ≤ {b.value:.0%}" if b.relative else f"{m} ≤ {format_value(m, b.value)}"
            for m, b in self._bounds.items()
        ]
        return ", ".join(parts)


def format_value(metric: str, value: float) -> str:
    """Return a value of `metric`, in base units, as people read it: "1.2 M", "2 MB", "8 ms"."""
    write = {"count": format_count, "bytes": format_bytes, "seconds": format_seconds}
    return write[METRICS[metric]](value)


def _bound(metric: str, value: float | str) -> Bound:
    if isinstance(value, str):
        ratio = parse_ratio(value)
        relative = ratio is not None
        bound = Bound(ratio if ratio is not None else parse_quantity(value, METRICS[metric]), relative)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        # Latencies below one second are the rule, so a bare number up to 1 is always a fraction.
        bound = Bound(float(value), value <= 1)
    else:
        raise InputError(f"budget {metric}={value!r}: expected a number or text such as '50%'")
    if not math.isfinite(bound.value) or bound.value <= 0:
        raise InputError(f"budget {metric}={value!r}: must be a positive number")
    return bound
