"""Products that run together with the depthwise convolution that alone reads them, a few planes at a time."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from billhook.compile.blocks import multiplications
from billhook.compile.ir import Network, Select, Value
from billhook.compile.products import Depthwise, Product
from billhook.compile.tiles import IN_LANES, Tile, cut

CHAIN = 8  # planes that are made before they are read
SLOTS = 8  # threads that may do that at the same time, each in planes of its own
_DENSEST = 0.5  # of the weights: denser products would rather keep what they read in the cache


def chained(network: Network, tiles: Mapping[str, Tile]) -> frozenset[Value]:
    """Return the values of a network in the engine's operators of which only a few planes exist at a time."""
    uses = network.uses
    ops = [op for op in network if not isinstance(op, Select)]
    return frozenset(
        op.output
        for op, reader in pairwise(ops)
        if isinstance(op, Product)
        and isinstance(reader, Depthwise)
        and reader.inputs[0] is op.output
        and uses[op.output] == 1
        and _fits(op, cut(op, tiles).rows)
    )


def slots(value: Value) -> int:
    """Return how many threads have room for their planes."""
    return min(SLOTS, -(-value.channels // CHAIN))


def _fits(op: Product, rows: int) -> bool:
    groups, outputs, columns = op.weight.shape
    if groups > 1 or rows == IN_LANES:
        return False
    return bool(multiplications(op.weight, rows) <= _DENSEST * outputs * columns)
