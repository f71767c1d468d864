"""Grids of 8 bits: one for all values that hold the same numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from billhook.compile.int8.ranges import STEPS, Range
from billhook.compile.int8.weights import LEAST_SCALE
from billhook.compile.ir import Op, Quantised, Value


def grid(low: float, high: float) -> Quantised:
    """Return the grid that covers a range and zero; zero is on it."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max((high - low) / STEPS, LEAST_SCALE)))
    if low == high:
        scale = 1.0
    return Quantised(scale, min(STEPS, round(-low / scale)))


def grids(integer: Iterable[Op], moving: Iterable[Op], ranges: Mapping[str, Range]) -> dict[Value, Quantised]:
    """Return the grid of every value in 8 bits.

    Args:
        integer: Operators that compute in integers.
        moving: Those of them that make no new numbers: all they read and make is on one grid.
        ranges: By name of the value.
    """
    sets: dict[Value, set[Value]] = {}
    for op in integer:
        for value in (*op.inputs, op.output):
            sets.setdefault(value, {value})
    moved = set()
    for op in moving:
        moved.add(op.output)
        for value in op.inputs:
            joined = sets[value] | sets[op.output]
            for member in joined:
                sets[member] = joined
    made: dict[int, Quantised] = {}
    for members in sets.values():
        if id(members) not in made:
            own = [ranges[v.name] for v in members if v not in moved]
            made[id(members)] = grid(min(r.low for r in own), max(r.high for r in own))
    return {value: made[id(members)] for value, members in sets.items()}
