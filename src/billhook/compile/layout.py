"""Where every value lies: pitches, margins of zeros, and addresses in one arena.

Values that are read at shifted pixels need zeros around their planes; values that one flat loop reads and
writes need the same pitch. Buffers whose lifetimes do not meet share their place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from billhook.compile.chains import CHAIN, slots
from billhook.compile.format import VECTOR
from billhook.compile.ir import (
    QUAD,
    Activate,
    Affine,
    Binary,
    Convert,
    Integers,
    Network,
    Select,
    Softmax,
    Value,
)
from billhook.compile.planes import Matmul, Norm
from billhook.compile.products import Depthwise, Product, Reuse
from billhook.errors import CompileError, TooLargeError

LIMIT = 2**31 - 2**16  # floats that int32 addresses reach
_FLAT = (Affine, Activate, Binary, Convert, Softmax, Norm, Product, Reuse, Select)
_ALIASING = 256  # planes must not be a multiple of so many floats apart: 1 kB


@dataclass(frozen=True)
class Geometry:
    """Form of the planes of a value.

    Attributes:
        height, width: Pixels.
        pitch: Floats from one row to the next.
        before: Zeros ahead of pixel (0, 0); a multiple of 16.
        size: Floats from there to the end; a multiple of 16.
        stride: Floats from one plane to the next.
    """

    height: int
    width: int
    pitch: int
    before: int
    size: int
    stride: int

    @property
    def vectors(self) -> int:
        """Vectors of 16 pixels; 0 for values of one pixel, whose planes are single floats."""
        return 0 if self.stride == 1 else -(-((self.height - 1) * self.pitch + self.width) // VECTOR)

    @property
    def mask(self) -> np.ndarray:
        """Bits of the lanes that are pixels, [vectors]."""
        flat = np.arange(self.vectors * VECTOR).reshape(-1, VECTOR)
        inside = (flat % self.pitch < self.width) & (flat // self.pitch < self.height)
        bits: np.ndarray = (inside << np.arange(VECTOR)).sum(axis=1).astype(np.uint16)
        return bits


@dataclass(frozen=True)
class Layout:
    """Where every value lies.

    Attributes:
        geometry: Of every value.
        planes: Address of pixel (0, 0) of every plane of every value.
        arena: Floats of all.
        chained: Values of which only a few planes exist at a time; see `chains`.
    """

    geometry: Mapping[Value, Geometry]
    planes: Mapping[Value, Integers]
    arena: int
    chained: frozenset[Value] = frozenset()


def lay_out(network: Network, chained: frozenset[Value] = frozenset()) -> Layout:
    """Return the layout of a network in the engine's form (no `Convolution`); see `chains.chained`.

    Raises:
        TooLargeError: if the values do not fit into 8 GB.
    """
    geometry = _geometries(network)
    made = [p.value for p in network.inputs]
    made += [op.output for op in network if not isinstance(op, Select)]
    sources = _sources(network, {v: i for i, v in enumerate(made)}, chained)
    sizes = [_floats(geometry[v], CHAIN * slots(v) if v in chained else v.planes) for v in made]
    starts, arena = _placed(sizes, _lifetimes(network, made, sources, chained))
    if arena > LIMIT:
        raise TooLargeError(
            f"the network computes {4 * arena / 1e9:.1f} GB of numbers, and the engine addresses 8 GB; "
            "use smaller inputs"
        )
    planes = {}
    for value, (buffers, numbers) in sources.items():
        first = np.array([starts[b] + geometry[made[b]].before for b in buffers], np.int64)
        strides = np.array([geometry[made[b]].stride for b in buffers], np.int64)
        planes[value] = (first + strides * numbers).astype(np.int32)
    return Layout(geometry, planes, arena, chained)


def _floats(form: Geometry, planes: int) -> int:
    return -(-planes // VECTOR) * VECTOR if form.stride == 1 else planes * form.stride


@dataclass
class _Need:
    """Zeros that readers of a value want around its planes, and floats in a row."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0
    pitch: int = 0
    by_rows: bool = False  # whole vectors are written from the first pixel of the last row on
    together: set[Value] = field(default_factory=set)  # values of the same pitch


def _geometries(network: Network) -> dict[Value, Geometry]:
    needs = {v: _Need(pitch=v.width, together={v}) for v in network.values}
    for op in network:
        if isinstance(op, _FLAT):
            for value in op.inputs:
                if not value.is_vector:
                    _unite(needs, value, op.output)
        if isinstance(op, Matmul):
            _unite(needs, op.inputs[1], op.output)
        if isinstance(op, Product | Reuse):
            _widen(needs, op)
        if isinstance(op, Depthwise):
            _surround(needs[op.inputs[0]], op)
            needs[op.output].by_rows = True
    _share_margins(network, needs)
    pitches = {}
    for need in needs.values():
        members = need.together
        least = max(needs[m].pitch + max(needs[m].left, needs[m].right) for m in members)
        pitches[id(members)] = _even(least, members)
    return {v: _geometry(v, need, pitches[id(need.together)]) for v, need in needs.items()}


def _even(pitch: int, members: Iterable[Value]) -> int:
    """Return a pitch with which rows fill vectors, or halves of them, if no plane then takes more vectors."""
    whole = pitch + -pitch % (VECTOR // 2 if pitch <= VECTOR // 2 else VECTOR)
    free = all(_vectors(m, whole) == _vectors(m, pitch) for m in members if not m.is_vector)
    return whole if free else pitch


def _vectors(value: Value, pitch: int) -> int:
    return -(-((value.height - 1) * pitch + value.width) // VECTOR)


def _unite(needs: dict[Value, _Need], a: Value, b: Value) -> None:
    if needs[a].together is needs[b].together:
        return
    merged = needs[a].together
    merged |= needs[b].together
    for member in merged:
        needs[member].together = merged


def _widen(needs: dict[Value, _Need], op: Product | Reuse) -> None:
    x, out, need = op.inputs[0], op.output, needs[op.inputs[0]]
    down, right = op.taps[..., 1], op.taps[..., 2]
    need.top = max(need.top, -int(down.min()))
    need.bottom = max(need.bottom, out.height + int(down.max()) - x.height)
    need.left = max(need.left, -int(right.min()))
    need.right = max(need.right, out.width + int(right.max()) - x.width)


def _surround(need: _Need, op: Depthwise) -> None:
    x, out, size = op.inputs[0], op.output, op.weight.shape[-1]
    need.top, need.left = max(need.top, op.top), max(need.left, op.left)
    need.bottom = max(need.bottom, (out.height - 1) * op.stride + size - op.top - x.height)
    need.right = max(need.right, (out.width - 1) * op.stride + size - op.left - x.width)


def _share_margins(network: Network, needs: dict[Value, _Need]) -> None:
    """Pass what readers of selected planes need on to the values that own the planes."""
    for op in reversed(network.ops):
        if isinstance(op, Select):
            for value in op.inputs:
                for side in ("top", "bottom", "left", "right"):
                    most = max(getattr(needs[value], side), getattr(needs[op.output], side))
                    setattr(needs[value], side, most)


def _geometry(value: Value, need: _Need, pitch: int) -> Geometry:
    if value.is_vector:
        return Geometry(1, 1, 1, 0, 1, 1)
    before = _whole(need.top * pitch + need.left)
    used = (value.height - 1) * pitch + value.width
    size = _whole(max(used, used + need.bottom * pitch + need.right))
    if need.by_rows:
        size = max(size, _whole((value.height - 1) * pitch + max(_whole(value.width), _whole(pitch))))
    stride = before + size
    if stride % _ALIASING == 0:
        stride += VECTOR
    return Geometry(value.height, value.width, pitch, before, size, stride)


def _whole(floats: int) -> int:
    return -(-max(floats, 0) // VECTOR) * VECTOR


def _sources(
    network: Network, numbers: Mapping[Value, int], chained: frozenset[Value]
) -> dict[Value, tuple[Integers, Integers]]:
    """Return, for every value, the buffer of each of its planes and the plane's number there."""
    found: dict[Value, tuple[Integers, Integers]] = {}
    for value, number in numbers.items():
        count = np.arange(value.planes, dtype=np.int32)
        found[value] = (np.full_like(count, number), count % CHAIN if value in chained else count)
    for op in network:
        if isinstance(op, Select):
            found[op.output] = _selected(op, [found[v] for v in op.inputs])
    return found


def _selected(op: Select, parts: list[tuple[Integers, Integers]]) -> tuple[Integers, Integers]:
    """Return buffers and numbers of the planes that a selection takes; whole quads if they are quantised."""
    planes = op.planes
    if op.output.quantised:
        before = np.cumsum([0, *(v.planes for v in op.inputs[:-1])])
        each = zip(before, op.inputs, strict=True)
        quad = np.concatenate([first + np.arange(v.channels) // QUAD for first, v in each])
        channel = np.concatenate([np.arange(v.channels) % QUAD for v in op.inputs])
        ragged = np.flatnonzero(channel[planes] != np.arange(len(planes)) % QUAD)
        if len(ragged) or (quad[planes] != np.repeat(quad[planes[::QUAD]], QUAD)[: len(planes)]).any():
            raise CompileError(
                f"{op.kind} {op.output.name!r} takes quads of channels apart; this is a bug of the compiler"
            )
        planes = quad[planes[::QUAD]]
    buffers, numbers = (np.concatenate([p[i] for p in parts])[planes] for i in (0, 1))
    return buffers, numbers


def _lifetimes(
    network: Network,
    made: list[Value],
    sources: Mapping[Value, tuple[Integers, Integers]],
    chained: frozenset[Value],
) -> list[tuple[int, int]]:
    """Return the first and last operator for which each buffer must be there."""
    born = {p.value: -1 for p in network.inputs} | {op.output: i for i, op in enumerate(network)}
    ends = [born[v] for v in made]

    def read(values: Iterable[Value], when: int) -> None:
        for value in values:
            for buffer in np.unique(sources[value][0]):
                ends[buffer] = max(ends[buffer], when)

    readers = {v: op for op in network for v in op.inputs if v in chained}
    for i, op in enumerate(network):
        # What a chain reads is read until its end, when some of what it makes is there.
        read(op.inputs, network.ops.index(readers[op.output]) if op.output in chained else i)
    read((p.value for p in network.outputs), len(network.ops))
    return [(born[v], end) for v, end in zip(made, ends, strict=True)]


def _placed(sizes: list[int], lives: list[tuple[int, int]]) -> tuple[list[int], int]:
    """Return an address for every buffer, large ones first, each at the lowest free place; and the end."""
    starts = [0] * len(sizes)
    placed: list[int] = []
    for buffer in sorted(range(len(sizes)), key=lambda b: -sizes[b]):
        meets = [p for p in placed if lives[p][0] <= lives[buffer][1] and lives[buffer][0] <= lives[p][1]]
        at = 0
        for other in sorted(meets, key=lambda p: starts[p]):
            if at + sizes[buffer] <= starts[other]:
                break
            at = max(at, starts[other] + sizes[other])
        starts[buffer] = at
        placed.append(buffer)
    return starts, max((s + n for s, n in zip(starts, sizes, strict=True)), default=0)
