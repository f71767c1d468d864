"""Filter: all weights of an output leave together."""

from __future__ import annotations

from dataclasses import dataclass

from billhook.graph.patterns import Shape
from billhook.registry import Info
from billhook.sparse.patterns._blocks import Blocks

INFO = Info(
    "all weights of an output",
    "Wen et al., Learning Structured Sparsity in Deep Neural Networks, NeurIPS 2016, arXiv:1608.03665",
    notes="the shape stays: to make the network smaller, prune channels instead",
)


@dataclass(frozen=True)
class Filter(Blocks):
    """Units are whole rows [inputs, positions]: of an output that leaves, only the bias is left.

    References:
        Wen et al., "Learning Structured Sparsity in Deep Neural Networks", NeurIPS 2016, section 3.
        arXiv:1608.03665.
    """

    def block(self, shape: Shape) -> Shape:
        """Return one output with all inputs and positions."""
        return 1, shape[1], shape[2]


ENTRY = Filter
