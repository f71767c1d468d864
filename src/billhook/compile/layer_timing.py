"""Times of single layers with zeros, each in the cut that is fastest for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

import numpy as np
import torch

from billhook.compile.compiler import Compiled, assembled
from billhook.compile.ir import Floats, Linear, Select
from billhook.compile.layer_network import LayerForm, LayerNetwork, network_of
from billhook.compile.products import Depthwise, Phases, Product, numbered
from billhook.compile.session import EngineSession
from billhook.compile.tiles import IN_LANES, ROWS, Tile, rows_of, work
from billhook.graph.patterns import Pattern

PANELS = (6, 96)  # besides the usual one; those between differ less than times do
ROUNDS = 7
_MOST_WORK = 1.25  # times the least; cuts beyond it are not tried
_AT_ONCE = 1 << 24  # weights in one file: 64 MB, more than caches hold
_SEED = 0


@dataclass(frozen=True)
class LayerPoint:
    """A layer with some zeros.

    Attributes:
        form: Of the layer.
        pattern: Of its zeros; None: there are none.
        sparsity: Fraction of zeros to ask for.
    """

    form: LayerForm
    pattern: Pattern | None
    sparsity: float

    @cached_property
    def weight(self) -> Floats:
        """Random numbers with the zeros that the pattern would choose: [outputs, inputs, positions]."""
        rng = np.random.default_rng(_SEED)
        weight = rng.standard_normal(self.form.view, dtype=np.float32)
        if self.pattern is None:
            return weight
        share = self.pattern.unit_sparsity(self.sparsity, self.form.view)
        parts = self.pattern.choose(torch.from_numpy(weight), share)
        return np.where(self.pattern.mask(parts, self.form.view).numpy(), weight, np.float32(0))

    def __str__(self) -> str:
        """Return a text that differs for every point."""
        return f"{self.form}, {self.pattern or 'dense'} {self.sparsity:.4f}"


def time_points(points: Sequence[LayerPoint], *, threads: int = 1, isa: str = "best") -> dict[str, float]:
    """Return the seconds of every layer, by its text.

    As many files as there are cuts worth trying, for some 64 MB of weights each.

    Args:
        points: What to time.
        threads: Of the engine.
        isa: Instruction set.
    """
    found: dict[str, float] = {}
    for part in _parts(points):
        found |= _fastest(part, threads, isa)
    return found


def time_between(compiled: Compiled, *, threads: int = 1, isa: str = "best") -> float:
    """Return the seconds of all operators of a network that are no part of its layers."""
    layers = (Product, Linear, Depthwise, Phases, Select)
    between = [n for op, numbers in numbered(compiled.network) if not isinstance(op, layers) for n in numbers]
    with _session(compiled.file, threads, isa) as session:
        return sum(_in_turns(session, between).values(), 0.0)


def _parts(points: Sequence[LayerPoint]) -> Iterator[list[LayerPoint]]:
    part: list[LayerPoint] = []
    for point in points:
        if part and sum(p.form.weights for p in part) + point.form.weights > _AT_ONCE:
            yield part
            part = []
        part.append(point)
    yield part


def _fastest(points: Sequence[LayerPoint], threads: int, isa: str) -> dict[str, float]:
    weights = {str(p): (p.form, p.weight) for p in points}
    whole = network_of([(name, *each) for name, each in weights.items()])
    works = {name: {rows: work(op, rows) for rows in rows_of(op)} for name, op in whole.products.items()}
    best = {name: Tile(min(each, key=each.__getitem__)) for name, each in works.items()}
    most = {name: _MOST_WORK * min(each.values()) for name, each in works.items()}
    times = _times(whole, best, threads, isa)
    cuts: tuple[Tile | int, ...] = (*(Tile(rows) for rows in ROWS), *PANELS)
    for cut in cuts:
        given = {name: cut if isinstance(cut, Tile) else _with_panel(best[name], cut) for name in works}
        tried = {
            name: tile
            for name, tile in given.items()
            if tile != best[name] and works[name].get(tile.rows, inf) <= most[name]
        }
        if not tried:
            continue
        found = _times(network_of([(name, *weights[name]) for name in tried]), tried, threads, isa)
        for name, tile in tried.items():
            if found[name] < times[name]:
                best[name], times[name] = tile, found[name]
    return times


def _with_panel(tile: Tile, panel: int) -> Tile:
    return tile if tile.rows == IN_LANES else Tile(tile.rows, panel)  # rows in lanes know no panels


def _times(layers: LayerNetwork, tiles: Mapping[str, Tile], threads: int, isa: str) -> dict[str, float]:
    """Return the seconds of every layer in these cuts.

    Instructions take turns, so that weights come from where they come from in a network: not from the
    cache that the same instruction has just filled.
    """
    with _session(assembled(layers.network, tiles), threads, isa) as session:
        least = _in_turns(session, {n for numbers in layers.instructions.values() for n in numbers})
    return {name: sum(least[n] for n in numbers) for name, numbers in layers.instructions.items()}


def _session(file: bytes, threads: int, isa: str) -> EngineSession:
    """Return a session that has run once, on random numbers."""
    rng = np.random.default_rng(_SEED)
    session = EngineSession(file, threads, isa)
    session.run([rng.standard_normal((1, *p.shape), dtype=np.float32) for p in session.inputs])
    return session


def _in_turns(session: EngineSession, instructions: Iterable[int]) -> dict[int, float]:
    """Return the least seconds of every instruction."""
    least = dict.fromkeys(sorted(instructions), inf)
    for _ in range(ROUNDS):
        for number in least:
            least[number] = min(least[number], session.time(number, 1))
    return least
