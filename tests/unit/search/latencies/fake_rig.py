"""What times plans, and layers, without a clock: by formulas that a test knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from billhook.graph import Plan
from billhook.graph.patterns import Pattern
from billhook.graph.weights import WeightLayer
from billhook.search.space import Floats, Genes, Space


@dataclass(frozen=True)
class Pair:
    """Seconds of a candidate and of the original."""

    candidate: float
    original: float

    @property
    def ratio(self) -> float:
        return self.candidate / self.original


@dataclass
class FakeRig:
    """Candidates take what a function of their genes says.

    Attributes:
        space: The candidates.
        truth: Rows of genes → seconds.
        noise: Of each time, relative.
        asked: Genes of what was timed.
    """

    space: Space
    truth: Callable[[Genes], Floats]
    noise: float = 0.0
    asked: list[tuple[int, ...]] = field(default_factory=list)

    def __call__(self, plan: Plan) -> Pair:
        genes = self.space.of_plan(plan)
        self.asked.append(tuple(genes.tolist()))
        rows = np.stack([genes, self.space.highest])
        off = np.random.default_rng(len(self.asked)).normal(0, self.noise)
        candidate, original = self.truth(rows)
        return Pair(float(candidate) * (1 + off), float(original))


@dataclass
class FakeLayers:
    """A layer takes as long as it multiplies, and 5 more for each output; 30 pass between layers.

    Attributes:
        asked: Layers that were asked for, and their pattern.
        expected: Layers that were announced.
    """

    asked: list[tuple[WeightLayer, Pattern | None]] = field(default_factory=list)
    expected: list[WeightLayer] = field(default_factory=list)

    def latency(self, layer: WeightLayer, pattern: Pattern | None, sparsity: float) -> float:
        assert (pattern is None) == (sparsity == 0)
        self.asked.append((layer, pattern))
        return layer.macs * (1 - sparsity) + 5.0 * layer.view[0]

    def expect(self, layers: Sequence[WeightLayer]) -> None:
        self.expected += layers

    def others(self, layers: Sequence[WeightLayer]) -> float:
        return 30.0
