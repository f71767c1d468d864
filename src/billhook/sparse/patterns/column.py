"""Column: one input at one kernel position leaves for all outputs."""

from __future__ import annotations

from dataclasses import dataclass

from billhook.graph.patterns import Shape
from billhook.registry import Info
from billhook.sparse.patterns._blocks import Blocks

INFO = Info(
    "one input at one kernel position, for all outputs",
    "Wen et al., Learning Structured Sparsity in Deep Neural Networks, NeurIPS 2016, arXiv:1608.03665",
    notes="the matrix product stays dense and gets shorter: the limit of large blocks",
)


@dataclass(frozen=True)
class Column(Blocks):
    """Units are the columns of the weight seen as a matrix [outputs, inputs × positions].

    References:
        Wen et al., "Learning Structured Sparsity in Deep Neural Networks", NeurIPS 2016, section 3.
        arXiv:1608.03665 (there called shape-wise).
    """

    def block(self, shape: Shape) -> Shape:
        """Return one input at one position with all outputs."""
        return shape[0], 1, 1

    def refusal(self, shape: Shape, groups: int = 1) -> str | None:
        """Return why the pattern does not fit: outputs of several groups have no columns in common."""
        return None if groups == 1 else f"outputs of the {groups} groups have no columns in common"


ENTRY = Column
