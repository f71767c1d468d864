"""The network that the compiler rewrites: what it computes for one sample, in a dozen operators.

A `Value` is `channels` planes of height × width pixels; a vector has one pixel. Passes make a new `Network`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
Pair = tuple[int, int]
Sides = tuple[int, int, int, int]
"""Zeros around a plane: above, below, left, right."""

Shape = Literal[
    "none", "clip", "leaky", "sigmoid", "silu", "hardsigmoid", "hardswish", "tanh", "gelu", "gelu_tanh"
]  # fmt: skip


@dataclass(frozen=True)
class Activation:
    """A function of single numbers.

    Attributes:
        shape: Which; "clip" is min(max(x, low), high), so ReLU is clip(0, inf) and ReLU6 clip(0, 6).
        low: Of "clip"; the slope below zero of "leaky".
        high: Of "clip".
    """

    shape: Shape = "none"
    low: float = 0.0
    high: float = float("inf")

    def __bool__(self) -> bool:
        return self.shape != "none"


NONE = Activation()
RELU = Activation("clip")


QUAD = 4
"""Channels of a quantised value that lie in one 32-bit lane."""


@dataclass(frozen=True)
class Quantised:
    """Numbers of 8 bits without sign: x ≈ scale · (q - zero), with zero from 0 to 255."""

    scale: float
    zero: int


@dataclass(frozen=True, eq=False)
class Value:
    """What flows between operators, for one sample.

    Attributes:
        name: Unique in a network; that of the captured node.
        channels: Number of planes.
        height: Rows of a plane.
        width: Pixels of a row.
        quantised: How its numbers are kept in 8 bits; None for float32.
    """

    name: str
    channels: int
    height: int = 1
    width: int = 1
    quantised: Quantised | None = None

    @property
    def planes(self) -> int:
        """Planes in memory: one for each channel, or for every four of them if quantised."""
        return -(-self.channels // QUAD) if self.quantised else self.channels

    @property
    def pixels(self) -> int:
        """Pixels of one plane."""
        return self.height * self.width

    @property
    def is_vector(self) -> bool:
        """True if a plane is one pixel."""
        return self.pixels == 1


@dataclass(frozen=True, eq=False)
class Op:
    """Base of all operators.

    Attributes:
        inputs: What it reads.
        output: What it makes.
        activation: What is applied to every number of the output, at the very end.
    """

    inputs: tuple[Value, ...]
    output: Value
    activation: Activation = field(default=NONE, kw_only=True)

    @property
    def kind(self) -> str:
        """Name in messages."""
        return type(self).__name__.lower()

    def reading(self, values: dict[Value, Value]) -> Self:
        """Return the operator with other inputs in the place of some."""
        return replace(self, inputs=tuple(values.get(v, v) for v in self.inputs))


@dataclass(frozen=True, eq=False)
class Convolution(Op):
    """Σ weight · x at shifted pixels + bias, of inputs (x,) or (x, what is added before the activation).

    Attributes:
        weight: [outputs, inputs per group, kernel height, kernel width].
        bias: [outputs].
        stride: Vertical, horizontal.
        padding: Zeros around x.
        dilation: Vertical, horizontal.
        groups: Groups of channels; outputs of one read only its own inputs.
        weight_scale: [outputs] if x is quantised: weights are whole multiples of it, of -127 to 127.
    """

    weight: Floats
    bias: Floats
    stride: Pair = (1, 1)
    padding: Sides = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    weight_scale: Floats | None = None


@dataclass(frozen=True, eq=False)
class Linear(Op):
    """weight · x + bias over all numbers of x, in the order channels, rows, pixels; makes a vector.

    Attributes:
        weight: [outputs, channels · height · width].
        bias: [outputs].
        groups: Outputs of one group of channels read only its own; other weights are zero.
        weight_scale: As of a convolution.
    """

    weight: Floats
    bias: Floats
    groups: int = 1
    weight_scale: Floats | None = None


@dataclass(frozen=True, eq=False)
class Pool(Op):
    """Largest or mean number of windows.

    Attributes:
        mode: "max" ignores padding; "average" divides by the whole window, "average_inside" by the pixels
            that are not padding.
        kernel: Height and width of a window.
        stride: Vertical, horizontal.
        padding: Around x; windows that only a rounded-up output size needs are padding below and right.
        dilation: Vertical, horizontal.
    """

    mode: Literal["max", "average", "average_inside"]
    kernel: Pair
    stride: Pair
    padding: Sides = (0, 0, 0, 0)
    dilation: Pair = (1, 1)


@dataclass(frozen=True, eq=False)
class Mean(Op):
    """Mean of every plane; makes a vector."""


@dataclass(frozen=True, eq=False)
class Affine(Op):
    """scale · x + shift, with one number of each per channel."""

    scale: Floats
    shift: Floats


@dataclass(frozen=True, eq=False)
class Binary(Op):
    """a ∘ b number by number; b may be a vector with one number per channel, or with a single one."""

    function: Literal["add", "subtract", "multiply", "divide", "maximum", "minimum"]


@dataclass(frozen=True, eq=False)
class Activate(Op):
    """The activation alone."""


@dataclass(frozen=True, eq=False)
class Convert(Op):
    """The same numbers in 8 bits, or from there in float32, as the output says."""


@dataclass(frozen=True, eq=False)
class Select(Op):
    """Planes of the inputs, taken together in order, by number: concatenation, slices, shuffles of channels.

    Attributes:
        planes: Numbers of planes, one per channel of the output.
    """

    planes: Integers


@dataclass(frozen=True, eq=False)
class Pad(Op):
    """Zeros around every plane; negative sizes cut it."""

    padding: Sides


@dataclass(frozen=True, eq=False)
class Resize(Op):
    """Planes of another size.

    Attributes:
        mode: "nearest" takes pixel ⌊i · scale⌋; "bilinear" mixes the four nearest.
        align_corners: Whether the corner pixels coincide; else the corners of the planes do.
        scale: Pixels of x per pixel of the output, vertical and horizontal.
    """

    mode: Literal["nearest", "bilinear"]
    align_corners: bool
    scale: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Softmax(Op):
    """exp(x) over its sum over the channels of each of so many groups, at every pixel."""

    groups: int = 1


@dataclass(frozen=True, eq=False)
class Flatten(Op):
    """All numbers of x as a vector, in the order channels, rows, pixels."""


@dataclass(frozen=True)
class Port:
    """An input or output of the network as the user sees it.

    Attributes:
        name: Of the argument or the output.
        value: What it is inside.
        shape: Of one sample, as the user's tensor has it.
    """

    name: str
    value: Value
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Network:
    """Operators in the order in which they run.

    Attributes:
        ops: Every value is made once, before it is read.
        inputs: What the user gives.
        outputs: What the user gets.
    """

    ops: tuple[Op, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def __iter__(self) -> Iterator[Op]:
        return iter(self.ops)

    @property
    def values(self) -> list[Value]:
        """All values: the inputs, then what the operators make."""
        return [p.value for p in self.inputs] + [op.output for op in self.ops]

    @property
    def uses(self) -> Counter[Value]:
        """How often each value is read; being an output counts."""
        return Counter([v for op in self.ops for v in op.inputs] + [p.value for p in self.outputs])

    def with_ops(self, ops: Sequence[Op], moved: dict[Value, Value] | None = None) -> Network:
        """Return the network with other operators; `moved`: values that are gone → what has their place."""
        moved = moved or {}
        outputs = tuple(replace(p, value=moved.get(p.value, p.value)) for p in self.outputs)
        return replace(self, ops=tuple(op.reading(moved) for op in ops), outputs=outputs)
