"""How products are cut: rows of a block, and how many pixels pass at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from billhook.compile.blocks import multiplications
from billhook.compile.ir import Value
from billhook.compile.products import Product
from billhook.compile.quads import quad_multiplications

PANEL = 24  # vectors of 16 pixels; best or within 4 % of it for most layers of ResNet-50 and MobileNetV2
IN_LANES = 32  # rows of a block that lie in lanes, for dense matrices and small planes
RUN = 7  # pixels in a row that such a block reads together
ROWS = (IN_LANES, 8, 4, 1)
# What each kind of block reaches of the processor's peak, relative to that of 8 rows; measured with AVX-512.
RATES = {IN_LANES: 0.95, 8: 1.0, 4: 0.97, 1: 0.35}
_RATES_OF_QUADS = {IN_LANES: 1.2, 8: 1.0, 4: 0.9}
ROWS_OF_QUADS = (IN_LANES, 8, 4)


@dataclass(frozen=True)
class Tile:
    """How a product is cut; what tuning chooses.

    Attributes:
        rows: In a block: 8, 4 or 1; 32 for rows in lanes, which reads 7 pixels at a time and knows no panels.
        panel: Vectors of 16 pixels that all blocks run over before the next ones.
    """

    rows: int
    panel: int = PANEL


def cut(op: Product, tiles: Mapping[str, Tile]) -> Tile:
    """Return how a product is cut: as `tiles` says, if that is possible, or as usual."""
    tile = tiles.get(op.output.name) or usual_tile(op)
    return Tile(8) if tile.rows == IN_LANES and not runs_fit(op.output) else tile


def usual_tile(op: Product) -> Tile:
    """Return a good cut before anything is timed: the least work."""
    return Tile(min(rows_of(op), key=lambda rows: work(op, rows)))


def rows_of(op: Product) -> tuple[int, ...]:
    """Return the rows that a block of a product may have."""
    return ROWS_OF_QUADS if op.inputs[0].quantised else ROWS


def work(op: Product, rows: int) -> float:
    """Return multiplications, those of lanes that hold no pixel included, over the rate of such blocks."""
    if rows == IN_LANES and not runs_fit(op.output):
        return float("inf")
    if op.inputs[0].quantised:
        return quad_multiplications(op, rows) * _lanes(op.output, rows) / _RATES_OF_QUADS[rows]
    return multiplications(op.weight, rows) * _lanes(op.output, rows) / RATES[rows]


def runs_fit(out: Value) -> bool:
    """Return True if rows of pixels are long enough for runs."""
    return out.width >= RUN


def _lanes(out: Value, rows: int) -> int:
    """Return how many pixels are computed for one plane; between rows of a plane lies at least one more."""
    if rows == IN_LANES:
        return out.height * -(-out.width // RUN) * RUN
    return -(-(out.height * (out.width + 1)) // 16) * 16
