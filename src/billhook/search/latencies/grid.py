"""Seconds of layers on grids of outputs, inputs and densities, and what lies between the grid's points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import isfinite
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from billhook.errors import StorageError
from billhook.search.space import Floats

Ints = npt.NDArray[np.int64]
N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Grid:
    """What a layer takes: the table of JCW (section b.3 of its notes), with axes of any spacing.

    Attributes:
        outputs: Channels that are made, rising.
        inputs: Channels of a group that are read, rising.
        densities: Fractions of the weights that stay, rising.
        seconds: [outputs, inputs, densities]; never falls along any axis.
    """

    outputs: tuple[float, ...]
    inputs: tuple[float, ...]
    densities: tuple[float, ...]
    seconds: tuple[tuple[tuple[float, ...], ...], ...]

    def __post_init__(self) -> None:
        for name in ("outputs", "inputs", "densities"):
            axis = getattr(self, name)
            if not axis or any(b <= a for a, b in pairwise(axis)) or not all(map(isfinite, axis)):
                raise StorageError(f"{name}: must rise")
        rows = [row for plane in self.seconds for row in plane]
        sizes = {len(self.outputs) - len(self.seconds)}
        sizes |= {len(self.inputs) - len(plane) for plane in self.seconds}
        sizes |= {len(self.densities) - len(row) for row in rows}
        if sizes != {0}:
            raise StorageError("seconds: must have a time for every point of the grid")
        if not all(isfinite(t) and t >= 0 for row in rows for t in row):
            raise StorageError("seconds: must be finite and at least 0")
        times = np.array(self.seconds)
        if any((np.diff(times, axis=axis) < 0).any() for axis in range(3)):
            raise StorageError("seconds: must not fall where outputs, inputs or density rise")

    @classmethod
    def of(
        cls, outputs: Sequence[float], inputs: Sequence[float], densities: Sequence[float], seconds: Floats
    ) -> Grid:
        """Return the grid of measured seconds [outputs, inputs, densities], made monotone; four digits."""
        times = monotone(seconds).tolist()
        return cls(
            tuple(map(float, outputs)),
            tuple(map(float, inputs)),
            tuple(map(float, densities)),
            tuple(tuple(tuple(float(f"{t:.4g}") for t in row) for row in plane) for plane in times),
        )


class Interpolation:
    """Tri-linear interpolation in the grids of many layers, for many rows at once.

    It gives the times of the grid exactly at its points, never falls along an axis, and stays at the border's
    value beyond the border.

    Args:
        grids: One for each layer.
    """

    def __init__(self, grids: Sequence[Grid]) -> None:
        self._axes = [_Axis([getattr(g, name) for g in grids]) for name in ("outputs", "inputs", "densities")]
        sizes = [int(axis.last.max(initial=0)) + 1 for axis in self._axes]
        self._seconds = np.zeros((len(grids), *sizes))
        for i, grid in enumerate(grids):
            times = np.array(grid.seconds)
            self._seconds[i, : times.shape[0], : times.shape[1], : times.shape[2]] = times

    def __call__(self, outputs: Floats, inputs: Floats, densities: Floats) -> Floats:
        """Return the seconds of every layer; sizes and result are [rows, layers]."""
        places = [axis.place(at) for axis, at in zip(self._axes, (outputs, inputs, densities), strict=True)]
        layers = np.arange(len(self._seconds))
        total: Floats = np.zeros(outputs.shape)
        for corner in product((0, 1), repeat=3):
            at = [place[end] for place, end in zip(places, corner, strict=True)]
            share = np.ones(outputs.shape)
            for (_, _, fraction), end in zip(places, corner, strict=True):
                share *= fraction if end else 1 - fraction
            total += share * self._seconds[layers, at[0], at[1], at[2]]
        return total


class _Axis:
    """The points of one axis, of all layers."""

    def __init__(self, points: Sequence[Sequence[float]]) -> None:
        self.last: Ints = np.array([len(p) - 1 for p in points], dtype=np.int64)
        self._points = np.full((len(points), max(map(len, points), default=1)), np.inf)
        for i, own in enumerate(points):
            self._points[i, : len(own)] = own

    def place(self, at: Floats) -> tuple[Ints, Ints, Floats]:
        """Return the points below and above, and how far from the one to the other: [rows, layers] each."""
        layers = np.arange(len(self._points))
        below = (self._points <= at[:, :, None]).sum(2) - 1
        below = np.clip(below, 0, np.maximum(self.last - 1, 0))
        above = np.minimum(below + 1, self.last)
        low, high = self._points[layers, below], self._points[layers, above]
        span = np.where(high > low, high - low, 1.0)
        return below, above, np.clip((at - low) / span, 0.0, 1.0) * (high > low)


def monotone(seconds: Floats) -> Floats:
    """Return times that fall along no axis: halfway between the nearest such from above and from below.

    What falls is noise of timing, or a width that kernels do not like; times that never fall come out as they
    were.
    """
    above, below = seconds, seconds
    for axis in range(seconds.ndim):
        above = np.maximum.accumulate(above, axis=axis)
        below = np.flip(np.minimum.accumulate(np.flip(below, axis), axis=axis), axis)
    middle: Floats = (above + below) / 2
    return middle


def spaced(values: Sequence[N], most: int) -> list[N]:
    """Return at most so many of the values, which rise: the ends, and others evenly between them."""
    if len(values) <= most:
        return list(values)
    chosen = np.unique(np.rint(np.linspace(0, len(values) - 1, most)).astype(int))
    return [values[i] for i in chosen]
