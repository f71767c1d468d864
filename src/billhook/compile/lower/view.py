"""A tensor as planes: what all lowerings are written in."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class View:
    """One sample of a tensor as planes.

    Attributes:
        planes: Numbers of planes in the builder's count, shaped like the leading dimensions of a sample.
        spatial: Sizes of the trailing dimensions, in all the pixels of a plane; () if that is one.
    """

    planes: Numbers
    spatial: Shape

    @property
    def shape(self) -> Shape:
        """Of one sample."""
        return (*self.planes.shape, *self.spatial)

    @property
    def pixels(self) -> int:
        """Of one plane."""
        return prod(self.spatial)

    def of(self, planes: Numbers) -> View:
        """Return a view of other planes of the same size."""
        return View(planes, self.spatial)


def arranged(planes: Numbers, pixels: int, shape: Shape) -> View | None:
    """Return planes as a tensor of `shape`; None if a dimension would hold a part of a plane's pixels."""
    at = len(shape)
    while at and prod(shape[at:]) < pixels:
        at -= 1
    if prod(shape[at:]) != pixels or prod(shape[:at]) != planes.size:
        return None
    return View(planes.reshape(shape[:at]), shape[at:])
