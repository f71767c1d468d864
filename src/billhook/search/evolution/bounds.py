"""`Bounds`: the box of genes that evolution stays in, and ways from its rows to those within a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from billhook.search.space import Floats, Genes, Space

# Which of [rows, genes] a budget allows; what lies below an allowed row is allowed too.
Allowed = Callable[[Genes], npt.NDArray[np.bool_]]

_TINY = 1e-9


@dataclass(frozen=True, eq=False)
class Bounds:
    """A box of genes.

    Attributes:
        space: What the genes mean.
        low: Lower bound of each gene: [genes].
        high: Upper bound of each gene: [genes].
    """

    space: Space
    low: Genes
    high: Genes

    @classmethod
    def above(cls, space: Space, least: Callable[[int], float]) -> Bounds:
        """Return the box of all values of at least a fraction of the whole.

        Args:
            space: The whole space.
            least: Number of a gene → that fraction; a gene without so large a value keeps its largest.
        """
        fractions = space.fractions(np.arange(int(space.sizes.max()))[:, None].clip(max=space.highest))
        wanted = np.array([least(i) for i in range(len(space.genes))])
        low = np.minimum((fractions < wanted - _TINY).sum(0), space.highest)
        return cls(space, low.astype(np.int64), space.highest)

    def snap(self, fractions: Floats) -> Genes:
        """Return the nearest genes in the box: [rows, genes]."""
        return np.clip(self.space.nearest(fractions), self.low, self.high)

    def random(self, rng: np.random.Generator, rows: int) -> Genes:
        """Return rows in which every value of a gene is as likely: [rows, genes]."""
        return rng.integers(self.low, self.high + 1, size=(rows, len(self.low)), dtype=np.int64)

    def lowered(self, row: Genes, allowed: Allowed, rng: np.random.Generator) -> Genes:
        """Return the row if it is allowed, else the first that is on a random way down.

        One gene at a time is lowered by one value. The low corner must be allowed.
        """
        if allowed(row[None])[0]:
            return row
        steps = rng.permutation(np.repeat(np.arange(len(row)), row - self.low))
        way = row - _ones(row, steps)
        first: Genes = way[int(allowed(way).argmax())]
        return first

    def raised(self, row: Genes, allowed: Allowed, rng: np.random.Generator) -> Genes:
        """Return an allowed row, with random genes raised by one value at a time until none can be.

        Asks what is allowed once for each gene at most.
        """
        steps = rng.permutation(np.repeat(np.arange(len(row)), self.high - row))
        while len(steps):
            way = row + _ones(row, steps)
            fits = allowed(way)
            if fits.all():
                last: Genes = way[-1]
                return last
            count = int(fits.argmin())
            row = way[count - 1] if count else row
            steps = steps[count:][steps[count:] != steps[count]]  # that gene cannot be raised from here on
        return row


def _ones(row: Genes, steps: Genes) -> Genes:
    """Return how often each gene has been stepped after every step: [steps, genes]."""
    return np.cumsum(np.eye(len(row), dtype=np.int64)[steps], axis=0)
