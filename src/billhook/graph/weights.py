"""The weights of a network's convolutions and linear layers: what multiplies with them, and how often."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from torch import fx

from billhook.graph.capture import Program, layer_of
from billhook.graph.patterns import Pattern, Shape
from billhook.graph.rules._base import bind, shape_of

CONVOLUTIONS = (
    *("conv1d", "conv2d", "conv3d", "convolution"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
)


@dataclass(frozen=True)
class WeightLayer:
    """A convolution or linear layer, by its weight.

    Attributes:
        tensor: Name of the weight.
        layer: Name of the layer.
        kind: "conv" or "linear".
        shape: Of the weight.
        kernel: Of a convolution; () for a linear layer.
        stride: The same.
        groups: Of a convolution.
        transposed: The weight has its inputs first.
        positions: How often each weight is used in one forward pass of the example inputs.
        plane: Pixels along each axis of what a convolution makes (reads, if transposed); () if not known.
        others: Other names of the weight, and of the layers that use or own it.
    """

    tensor: str
    layer: str
    kind: Literal["conv", "linear"]
    shape: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False
    positions: int = 1
    others: tuple[str, ...] = ()
    plane: tuple[int, ...] = ()

    @property
    def view(self) -> Shape:
        """Outputs, inputs (of a group) and kernel positions."""
        first, second, *kernel = self.shape
        if self.transposed:  # inputs × outputs of a group
            return second * self.groups, first // self.groups, prod(kernel)
        return first, second, prod(kernel)

    @property
    def depthwise(self) -> bool:
        """True if every group has one input channel."""
        return self.groups > 1 and self.view[1] == 1

    @property
    def macs(self) -> int:
        """Multiply-adds of one forward pass."""
        return prod(self.shape) * self.positions

    @property
    def names(self) -> frozenset[str]:
        """All names of the weight and of the layers that use or own it."""
        return frozenset((self.tensor, self.layer, *self.others)) - {""}

    def refusal(self, pattern: Pattern) -> str | None:
        """Return why a pattern does not fit the weight, None if it does."""
        if self.transposed and self.groups > 1 and not pattern.single:
            # Structures see a tensor with all inputs first: across groups, what is beside what means nothing.
            return f"a transposed convolution in {self.groups} groups can only lose single weights"
        return pattern.refusal(self.view, self.groups)


def weight_layers(program: Program) -> tuple[WeightLayer, ...]:
    """Return the layers with a weight of their own, in the order of the forward pass; shared weights once."""
    found: dict[str, WeightLayer] = {}
    for node in program.graph.nodes:
        layer = _layer(program, node) if node.op == "call_function" else None
        if layer is None:
            continue
        before = found.get(layer.tensor)
        if before is not None:
            positions = before.positions + layer.positions
            layer = replace(before, positions=positions, others=(*before.others, layer.layer))
        found[layer.tensor] = layer
    names = {tensor: [tensor] for tensor in found}
    for alias, tensor in program.aliases.items():
        if tensor in names:
            names[tensor].append(alias)
    return tuple(_named(layer, names[layer.tensor]) for layer in found.values())


def weight_name(program: Program, node: fx.Node) -> str | None:
    """Return the parameter that a convolution or linear layer multiplies with; None for other operators."""
    call = bind(node)
    if call.name not in (*CONVOLUTIONS, "linear"):
        return None
    weight = call["weight"]
    name = program.tensors.get(weight.name) if isinstance(weight, fx.Node) else None
    return name if name in program.parameters else None


def _named(layer: WeightLayer, tensors: list[str]) -> WeightLayer:
    """Return a layer with all names of its weight and of the modules that own it."""
    owners = (name.rpartition(".")[0] for name in tensors)
    others = dict.fromkeys((*layer.others, *tensors, *owners))
    return replace(layer, others=tuple(n for n in others if n not in ("", layer.tensor, layer.layer)))


def _layer(program: Program, node: fx.Node) -> WeightLayer | None:
    call, name = bind(node), weight_name(program, node)
    if name is None:
        return None
    shape = program.shapes[name]
    if call.name == "linear":
        return WeightLayer(name, layer_of(node), "linear", shape, positions=prod(call.shape[:-1]))
    x = call.get("input", "self")
    transposed = call.name.startswith("conv_transpose") or bool(call.get("transposed"))
    spatial = len(shape) - 2
    batch_and_pixels = shape_of(x) if transposed else call.shape
    channel = len(batch_and_pixels) - spatial - 1
    positions = prod(s for axis, s in enumerate(batch_and_pixels) if axis != channel)
    plane = tuple(int(s) for s in batch_and_pixels[channel + 1 :])
    stride = call["stride"]
    stride = tuple(stride) if isinstance(stride, (list, tuple)) else (int(stride),) * spatial
    stride = stride * spatial if len(stride) == 1 else stride
    groups = int(call["groups"])
    return WeightLayer(
        *(name, layer_of(node), "conv", shape, shape[2:], stride, groups, transposed, positions),
        plane=plane,
    )
