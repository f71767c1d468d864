"""Channel: all weights that read an input leave together."""

from __future__ import annotations

from dataclasses import dataclass

from billhook.graph.patterns import Shape
from billhook.registry import Info
from billhook.sparse.patterns._blocks import Blocks

INFO = Info(
    "all weights that read one input channel",
    "Wen et al., Learning Structured Sparsity in Deep Neural Networks, NeurIPS 2016, arXiv:1608.03665",
    notes="the layer ignores a channel that others may still read",
)


@dataclass(frozen=True)
class Channel(Blocks):
    """Units are W[:, i]: one input over all outputs and positions.

    References:
        Wen et al., "Learning Structured Sparsity in Deep Neural Networks", NeurIPS 2016, section 3.
        arXiv:1608.03665.
    """

    def block(self, shape: Shape) -> Shape:
        """Return one input with all outputs and positions."""
        return shape[0], 1, shape[2]

    def refusal(self, shape: Shape, groups: int = 1) -> str | None:
        """Return why the pattern does not fit: outputs of several groups read different channels."""
        return None if groups == 1 else f"outputs of the {groups} groups do not read the same channels"


ENTRY = Channel
