"""Which cut of every product is fastest on this processor, by timing.

Every candidate is given to all products at once, and the engine times its instructions one by one: as many
files as there are candidates, whatever the number of layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from math import inf

import numpy as np

from billhook.compile.compiler import assembled
from billhook.compile.ir import Network
from billhook.compile.products import Depthwise, Product, numbered
from billhook.compile.session import EngineSession
from billhook.compile.tiles import IN_LANES, ROWS, Tile, rows_of, work

PANELS = (3, 6, 12, 24, 96)
_WORTH = 0.95  # of the time: what timing can tell from the usual cut, on a machine that does other things too
_MOST = 1.5  # times the least expected work; cuts beyond it are not tried


def tune(network: Network, *, threads: int = 1, isa: str = "best", repeat: int = 5) -> dict[str, Tile]:
    """Return the fastest cut of every product whose usual one is beaten, by the name of what it makes.

    Args:
        network: In the engine's operators.
        threads: Of the engine.
        isa: Instruction set.
        repeat: Runs of every instruction, of which the fastest counts.
    Raises:
        EngineError: if the engine is not built.
    """
    products = dict(_products(network))
    works = {op.output.name: {rows: work(op, rows) for rows in rows_of(op)} for op in products.values()}
    usual = {name: Tile(min(each, key=each.__getitem__)) for name, each in works.items()}
    best: dict[str, Tile] = {}
    times: dict[str, float] = {}
    for tile in [None, Tile(IN_LANES), *(Tile(rows, panel) for rows in ROWS[1:] for panel in PANELS)]:
        tried = {
            name: tile
            for name, each in works.items()
            if tile is not None
            and tile != usual[name]
            and each.get(tile.rows, inf) <= _MOST * min(each.values())
        }
        if tile is not None and not tried:
            continue
        found = _times(network, {**usual, **tried}, products, threads, isa, repeat)
        for name in tried or usual:
            if tile is None:
                times[name] = _WORTH * found[name]
            elif found[name] < times[name]:
                best[name], times[name] = tile, found[name]
    return best


def _products(network: Network) -> Iterator[tuple[range, Product]]:
    """Yield the products with the numbers of their instructions, a depthwise one behind them included.

    Some cuts let the two run together; see `chains`.
    """
    computed = [(op, numbers) for op, numbers in numbered(network) if numbers]
    for (op, numbers), behind in zip_longest(computed, [op for op, _ in computed[1:]]):
        if isinstance(op, Product):
            yield range(numbers.start, numbers.stop + isinstance(behind, Depthwise)), op


def _times(
    network: Network,
    tiles: Mapping[str, Tile],
    products: Mapping[range, Product],
    threads: int,
    isa: str,
    repeat: int,
) -> dict[str, float]:
    rng = np.random.default_rng(0)
    with EngineSession(assembled(network, tiles), threads, isa) as session:
        session.run([rng.standard_normal((1, *p.shape), dtype=np.float32) for p in session.inputs])
        return {
            op.output.name: sum(session.time(number, repeat) for number in numbers)
            for numbers, op in products.items()
        }
