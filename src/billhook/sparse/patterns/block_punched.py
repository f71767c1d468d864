"""Block-punched: blocks of filters × channels lose the same positions of their kernels."""

from __future__ import annotations

from dataclasses import dataclass

from billhook.graph.patterns import Shape
from billhook.options import Number, option
from billhook.registry import Info
from billhook.sparse.patterns._blocks import Blocks
from billhook.sparse.patterns._borders import misfit, remainder_option

INFO = Info(
    "the same kernel position of all kernels in a block of rows × columns",
    "Gong et al., Automatic Mapping of the Best-Suited DNN Pruning Schemes, TODAES 2022, arXiv:2111.11581",
    notes="8x1 and 4x1 are what fast kernels like: neighbouring outputs share the inputs they read",
)


@dataclass(frozen=True)
class BlockPunched(Blocks):
    """Units of `rows` outputs × `columns` inputs at one kernel position.

    1×1 is unstructured pruning, a block as large as the layer prunes columns. With one column, neighbouring
    outputs read the same inputs: a kernel loads each of them once for all.

    References:
        Gong et al., "Automatic Mapping of the Best-Suited DNN Pruning Schemes for Real-Time Mobile
        Acceleration", 2022. arXiv:2111.11581 (regularity; thresholds and code are reconstructed).
    Differs from the source:
        Units are ranked by their joint L2 norm, which makes the choice the exact Euclidean projection.
    """

    rows: int = option(4, Number(1, integer=True), "outputs of a block")
    columns: int = option(1, Number(1, integer=True), "inputs of a block")
    remainder: str = remainder_option()

    def __str__(self) -> str:
        rest = "" if self.remainder == "pad" else f":remainder={self.remainder}"
        return f"{self.rows}x{self.columns}{rest}"

    def block(self, shape: Shape) -> Shape:
        """Return the block, at most as large as the weight."""
        return min(self.rows, shape[0]), min(self.columns, shape[1]), 1

    def refusal(self, shape: Shape, groups: int = 1) -> str | None:
        """Return why the blocks do not fit: they do not divide the layer, or would reach over groups."""
        rows, columns, _ = self.block(shape)
        return misfit(rows, columns, shape, groups, self.remainder)


ENTRY = BlockPunched
