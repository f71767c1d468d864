"""Single layers side by side in one network, so that the engine can time each of them.

Layers that read planes of the same form read the same value. It has the margins of zeros that a 3×3 window
needs, as in a network, where hardly any value is read by 1×1 convolutions alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isqrt, prod

import numpy as np

from billhook.compile.ir import (
    RELU,
    Convolution,
    Floats,
    Linear,
    Network,
    Op,
    Pair,
    Port,
    Value,
)
from billhook.compile.passes.as_products import as_products
from billhook.compile.products import Product, numbered
from billhook.graph.patterns import Shape
from billhook.graph.weights import WeightLayer

MOST_WEIGHTS = 1 << 22  # of what is timed; of larger layers, only some outputs are computed


@dataclass(frozen=True)
class LayerForm:
    """What the time of a dense layer depends on.

    Attributes:
        outputs: Channels that it makes.
        inputs: Channels of a group that it reads.
        plane: Height and width of what it makes; (1, 1) of a linear layer.
        kernel: Height and width.
        stride: Vertical, horizontal.
        groups: Of channels.
    """

    outputs: int
    inputs: int
    plane: Pair
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    groups: int = 1

    @classmethod
    def of(cls, layer: WeightLayer) -> LayerForm | None:
        """Return the form of a layer, for one sample; None where the engine has no operator for it."""
        if layer.transposed or len(layer.kernel) > 2:
            return None
        outputs, inputs, _ = layer.view
        if layer.kind == "linear":
            return cls(outputs, inputs, (1, 1))
        plane = _pair(layer.plane) if layer.plane else _square(layer.positions)
        return cls(outputs, inputs, plane, _pair(layer.kernel), _pair(layer.stride), layer.groups)

    @property
    def view(self) -> Shape:
        """Outputs, inputs of a group, positions of the kernel: the shape that patterns see."""
        return self.outputs, self.inputs, prod(self.kernel)

    @property
    def weights(self) -> int:
        """How many there are."""
        return prod(self.view)

    @property
    def depthwise(self) -> bool:
        """True if every group has one input channel."""
        return self.groups > 1 and self.inputs == 1

    @property
    def sample(self) -> LayerForm:
        """The same with as many outputs as are timed; the time of a layer is proportional to them."""
        most = max(32, MOST_WEIGHTS // prod(self.view[1:]) // 32 * 32)
        return self if self.groups > 1 or self.outputs <= most else replace(self, outputs=most)

    def __str__(self) -> str:
        """Return a text that differs for every form."""
        texts = ["x".join(map(str, pair)) for pair in (self.kernel, self.stride, self.plane)]
        return f"{self.outputs}x{self.inputs} in {self.groups} of {texts[0]} by {texts[1]} to {texts[2]}"


@dataclass(frozen=True)
class LayerNetwork:
    """Layers in the engine's operators.

    Attributes:
        network: All of them.
        products: Those that have a cut, by the name of the layer.
        instructions: Numbers of what computes each layer: its own, and what lays its input out.
    """

    network: Network
    products: dict[str, Product]
    instructions: dict[str, list[int]]


def network_of(layers: Sequence[tuple[str, LayerForm, Floats]]) -> LayerNetwork:
    """Return a network with all layers: name, form and weight [outputs, inputs of a group, positions]."""
    inputs: dict[tuple[int, int, int], Value] = {}
    ops: list[Op] = []
    for name, form, weight in layers:
        channels = form.inputs * form.groups
        height, width = (pixels * step for pixels, step in zip(form.plane, form.stride, strict=True))
        x = inputs.get((channels, height, width))
        if x is None:
            x = inputs[channels, height, width] = Value(f"x{len(inputs)}", channels, height, width)
            if not x.is_vector:
                ops.append(_window(x))
        ops.append(_layer(name, form, weight, x))
    ports = tuple(Port(v.name, v, (v.channels, v.height, v.width)) for v in inputs.values())
    made = ops[-1].output
    outputs = (Port("last", made, (made.channels, made.height, made.width)),)
    network = as_products(Network(tuple(ops), ports, outputs))  # and no pass that drops what nobody reads
    names = {name for name, _, _ in layers}
    products = {op.output.name: op for op in network if isinstance(op, Product) and op.output.name in names}
    own = {name: numbers for name, numbers in _instructions(network).items() if name in names}
    return LayerNetwork(network, products, own)


def _layer(name: str, form: LayerForm, weight: Floats, x: Value) -> Op:
    out = Value(name, form.outputs, *form.plane)
    bias = np.zeros(form.outputs, np.float32)
    if out.is_vector and x.is_vector and form.groups == 1:
        return Linear((x,), out, weight.reshape(form.outputs, -1), bias, activation=RELU)
    (high, wide) = form.kernel
    return Convolution(
        (x,),
        out,
        weight.reshape(form.outputs, form.inputs, high, wide),
        bias,
        form.stride,
        ((high - 1) // 2, high // 2, (wide - 1) // 2, wide // 2),
        groups=form.groups,
        activation=RELU,
    )


def _window(x: Value) -> Op:
    """Return a product of one plane and one 3×3 window: who reads x like this wants zeros around it."""
    out = Value(f"{x.name}.window", 1, x.height, x.width)
    taps = np.array([[(0, i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]], np.int32)
    return Product((x,), out, np.ones((1, 1, 9), np.float32), taps, np.zeros(1, np.float32))


def _instructions(network: Network) -> dict[str, list[int]]:
    """Return the instructions behind every value that is no input: of its operator and those before it."""
    found: dict[str, list[int]] = {}
    for op, numbers in numbered(network):
        before = [n for v in op.inputs for n in found.get(v.name, ())]
        found[op.output.name] = [*before, *numbers]
    return found


def _pair(sizes: Sequence[int]) -> Pair:
    """Return vertical and horizontal sizes; convolutions of one axis are one pixel high."""
    return (1, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


def _square(positions: int) -> Pair:
    """Return the sides of the rectangle of so many pixels that is nearest to a square."""
    height = next(h for h in range(max(1, isqrt(positions)), 0, -1) if positions % h == 0)
    return height, positions // height
