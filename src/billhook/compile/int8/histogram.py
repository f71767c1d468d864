"""Counts of numbers in bins that widen when larger numbers come: one pass over any amount of data."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BINS = 8192  # 16 to 32 for each of the 255 steps of a grid
LEAST_WIDTH = 2.0**-100  # numbers below it are as good as zero, and float32 still divides by it
_CHUNK = 2**22  # numbers whose bins are in memory at once

Numbers = npt.NDArray[np.float64]


class Histogram:
    """Numbers seen so far.

    Zeros are counted apart: they are on every grid, and half of what a ReLU makes. The width of a bin is a
    power of two and zero is an edge, so that two bins become one without any number changing its bin.

    Attributes:
        low, high: Smallest and largest number; inf and -inf before there is one.
        zeros: How many are zero.
        width: Of a bin; 0 before there is another number than zero.
        counts: Of all other numbers; bin i goes from (first + i) · width to the next edge.
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf
        self.zeros = 0
        self.width = 0.0
        self._first = 0
        self.counts: Numbers = np.zeros(0)

    @property
    def centres(self) -> Numbers:
        """Middle of each bin, within what was seen."""
        middles = (self._first + np.arange(len(self.counts)) + 0.5) * self.width
        return np.clip(middles, self.low, self.high)

    def add(self, x: Tensor) -> None:
        """Count the numbers of a tensor; they must be finite."""
        if not x.numel():
            return
        low, high = (float(v) for v in torch.aminmax(x))
        self.low, self.high = min(self.low, low), max(self.high, high)
        if low == high == 0.0:
            self.zeros += x.numel()
            return
        self._widen()
        for part in torch.split(x.flatten(), _CHUNK):
            zeros = part.numel() - int(part.count_nonzero())
            bins = (part / self.width).floor_().long().sub_(self._first)
            found = torch.bincount(bins, minlength=len(self.counts)).numpy()
            found[-self._first] -= zeros
            self.zeros += zeros
            self.counts += found

    def _widen(self) -> None:
        """Let the bins cover all that was seen, and zero."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        old_width, old_first, old = self.width, self._first, self.counts
        width = old_width or max(LEAST_WIDTH, 2.0 ** math.ceil(math.log2((high - low) / (BINS - 2))))
        while math.floor(high / width) - math.floor(low / width) >= BINS:
            width *= 2
        first, last = math.floor(low / width), math.floor(high / width) + 1
        if (width, first, last - first) == (old_width, old_first, len(old)):
            return
        self.width, self._first, self.counts = width, first, np.zeros(last - first)
        if len(old):
            merged = np.floor((old_first + np.arange(len(old))) * (old_width / width)).astype(np.int64)
            np.add.at(self.counts, merged - first, old)
