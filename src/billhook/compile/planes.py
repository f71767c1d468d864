"""Operators on whole planes: pixels in other places, windows that cover a plane, means and variances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from billhook.compile.ir import Floats, Integers, Op


@dataclass(frozen=True, eq=False)
class Rearrange(Op):
    """out(c, i, j) = x(plane, row, pixel), these three being rows[c · height + i] + columns[j].

    Interleaving of planes, transposing of tensors, flips, rolls and mirrored borders have this form.

    Attributes:
        rows: [channels · height of the output, 3]: plane, row, pixel.
        columns: [width of the output, 3]; not negative.
    """

    rows: Integers
    columns: Integers

    def distances(self, addresses: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """Return how far the planes that columns add lie behind those of the rows.

        Args:
            addresses: Of the planes of x.
        Returns:
            [largest plane of the columns + 1]; None if the distance is not the same for all rows.
        """
        rows, more = np.unique(self.rows[:, 0]), np.unique(self.columns[:, 0])
        apart = addresses[rows[:, None] + more] - addresses[rows][:, None]
        if (apart != apart[:1]).any():
            return None
        found = np.zeros(more[-1] + 1, np.int64)
        found[more] = apart[0]
        return found


@dataclass(frozen=True, eq=False)
class Cover(Op):
    """Largest or mean number of windows that cover a plane as evenly as they can (adaptive pooling).

    Window i of n over m pixels holds pixels ⌊i · m / n⌋ to ⌈(i + 1) · m / n⌉.
    """

    mode: Literal["max", "average"]


@dataclass(frozen=True, eq=False)
class Norm(Op):
    """(x - mean) / √(variance + epsilon) · scale + shift, over groups of channels.

    Attributes:
        groups: Groups of channels, each with mean and variance of its own.
        by_pixel: Whether every pixel has its own mean and variance; else all pixels of a plane count.
        epsilon: Is added to the variance.
        scale, shift: [channels].
    """

    groups: int
    by_pixel: bool
    epsilon: float
    scale: Floats
    shift: Floats


@dataclass(frozen=True, eq=False)
class Matmul(Op):
    """scale · Σ_k a(r, k) · b(k, pixel) of two values (a, b), for every group of their planes.

    Attributes:
        groups: Equally large groups of planes of a, of b and of the output.
        by_plane: Row r is a plane of a, and k its pixel; else k is the plane and r the pixel.
        scale: Of all numbers.
    """

    groups: int
    by_plane: bool
    scale: float

    @property
    def rows(self) -> tuple[Integers, Integers]:
        """Plane and pixel of a(r, 0), for all rows of all groups."""
        a, count = self.inputs[0], self.output.channels
        if self.by_plane:
            return np.arange(count, dtype=np.int32), np.zeros(count, np.int32)
        first = np.arange(self.groups, dtype=np.int32) * (a.channels // self.groups)
        return np.repeat(first, a.pixels), np.tile(np.arange(a.pixels, dtype=np.int32), self.groups)

    def distances(self, addresses: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """Return how far the planes of a group of a lie from its first one; None if groups differ."""
        if self.by_plane:
            return np.zeros(1, np.int64)
        apart = addresses.reshape(self.groups, -1)
        apart = apart - apart[:, :1]
        return None if (apart != apart[:1]).any() else apart[0]
