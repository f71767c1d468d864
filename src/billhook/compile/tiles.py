"""How products are cut: rows of a block, and how many pixels pass at a time."""

from __future__ import annotations

from dataclasses import dataclass

from billhook.compile.blocks import multiplications
from billhook.compile.products import Product

PANEL = 24  # vectors of 16 pixels; best or within 4 % of it for most layers of ResNet-50 and MobileNetV2


@dataclass(frozen=True)
class Tile:
    """How a product is cut; what tuning chooses.

    Attributes:
        rows: In a block: 8, 4 or 1.
        panel: Vectors of 16 pixels that all blocks run over before the next ones.
    """

    rows: int
    panel: int


def usual_tile(op: Product) -> Tile:
    """Return a good cut before anything is timed: the block that multiplies least, weighed by its rate.

    Rates are what blocks of 4 and of 1 rows reach of the speed of blocks of 8, measured.
    """
    rates = {8: 1.0, 4: 0.97, 1: 0.35}
    costs = {rows: multiplications(op.weight, rows) / rate for rows, rate in rates.items()}
    return Tile(min(costs, key=lambda rows: costs[rows]), PANEL)
