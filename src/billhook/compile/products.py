"""Convolutions in the form the engine runs: shifted planes with stride 1, or one window for each plane."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from billhook.compile.ir import Floats, Integers, Network, Op, Pair, Select


@dataclass(frozen=True, eq=False)
class Phases(Op):
    """Every `step`-th row and pixel of x, once for each phase, planes of one phase after those of another.

    Channels of a quantised x are filled up to whole quads: every phase begins with a plane of its own.

    Attributes:
        step: Vertical, horizontal.
        phases: First row and pixel of each; a pixel that x does not have is zero.
    """

    step: Pair
    phases: tuple[Pair, ...]


@dataclass(frozen=True, eq=False)
class Product(Op):
    """Σ_k weight[k] · x(plane_k, row + down_k, pixel + right_k) + bias: any convolution of stride 1.

    Inputs are (x,) or (x, what is added before the activation).

    Attributes:
        weight: [groups, outputs per group, k].
        taps: [groups, k, 3]: plane, down, right.
        bias: [outputs].
        weight_scale: [outputs] if x is quantised; see `Convolution`.
    """

    weight: Floats
    taps: Integers
    bias: Floats
    weight_scale: Floats | None = None


@dataclass(frozen=True, eq=False)
class Room(Op):
    """Memory for one operator to work in: a vector of as many numbers, which nobody has written."""


@dataclass(frozen=True, eq=False)
class Reuse(Op):
    """A product whose pixels are computed once for every cluster of similar ones; approximate.

    Columns are cut into slabs of `length`. In each, the signs of x · planes - offsets number the cluster, and
    the first pixel of a cluster stands for all. Inputs are (x, room) or (x, room, what is added before the
    activation).

    Attributes:
        weight: [outputs, k].
        taps: [k, 3].
        bias: [outputs].
        length: Columns of a slab.
        planes: Hyper-planes, [k, hashes].
        offsets: [slabs, hashes].
    """

    weight: Floats
    taps: Integers
    bias: Floats
    length: int
    planes: Floats
    offsets: Floats


@dataclass(frozen=True, eq=False)
class Depthwise(Op):
    """One window for each plane, 3×3 or 5×5, of stride 1 or 2, read where it lies.

    Attributes:
        weight: [channels, size, size].
        bias: [channels].
        stride: In both directions.
        top: Rows of zeros above x.
        left: Zeros left of x.
    """

    weight: Floats
    bias: Floats
    stride: int
    top: int
    left: int


def numbered(network: Network) -> Iterator[tuple[Op, range]]:
    """Yield the operators of a network in the engine's form with the numbers of their instructions."""
    number = 0
    for op in network:
        count = 0 if isinstance(op, Select | Room) else len(op.phases) if isinstance(op, Phases) else 1
        yield op, range(number, number + count)
        number += count
