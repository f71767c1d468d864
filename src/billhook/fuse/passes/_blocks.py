"""Residual blocks in a graph of plain layers: what is added to what, and the layers in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from billhook.fuse._algebra import exact, folded_behind, scale_and_shift
from billhook.fuse._kernels import placing
from billhook.fuse._match import (
    Convolution,
    Norm,
    additions,
    before,
    block_of,
    convolution_of,
    name_of,
    norm_of,
    source_of,
)
from billhook.fuse.passes._folding import dtype_of, new_layer, store, window_of
from billhook.graph.layers import LayeredNetwork
from billhook.graph.rules._base import bind, shape_of


@dataclass(frozen=True)
class Block:
    """y = F(x) + S(x), where S is a stride and a matrix of channels.

    Attributes:
        at: Name of the block.
        operator: "add_identity" or "add_projection".
        addition: The sum.
        branch: F(x).
        source: x.
        strides: Of S; every how many-th pixel of x it reads.
        projection: The 1×1 convolution in S, if there is one.
        norm: The batch norm behind it.
        zeros: How many zero channels S puts before and behind those of x.
    """

    at: str
    operator: str
    addition: fx.Node
    branch: fx.Node
    source: fx.Node
    strides: tuple[int, ...]
    projection: fx.Node | None = None
    norm: fx.Node | None = None
    zeros: tuple[int, int] = (0, 0)

    @property
    def channels(self) -> int:
        """Number of channels of x."""
        return shape_of(self.source)[1]

    def matrix(self, network: LayeredNetwork) -> tuple[Tensor, Tensor | None]:
        """Return S as (matrix [out, in], bias or None), in float64."""
        layer = convolution_of(network, self.projection)
        if layer is None:
            return placing(self.channels, *self.zeros), None
        weight, bias = folded(layer, norm_of(network, self.norm))
        return weight.flatten(1), bias


@dataclass(frozen=True)
class Step:
    """A linear layer in a branch, and what follows it.

    Attributes:
        convolution: None where a batch norm stands alone, in front of the first activation.
        norm: The batch norm behind the convolution, if there is one.
        activation: The activation behind both; None in the last step.
    """

    convolution: fx.Node | None
    norm: fx.Node | None
    activation: fx.Node | None

    @property
    def layer(self) -> fx.Node:
        """The call that stays when the norm is folded."""
        node = self.convolution or self.norm
        assert node is not None
        return node


def blocks(network: LayeredNetwork) -> Iterator[Block]:
    """Yield the residual blocks of a network, in the order of their sums."""
    for addition, first, second in additions(network):
        for branch, shortcut in ((first, second), (second, first)):
            found = _block(network, addition, branch, shortcut)
            if found is not None:
                yield found
                break


def _block(network: LayeredNetwork, addition: fx.Node, branch: fx.Node, shortcut: fx.Node) -> Block | None:
    at = block_of(branch if block_of(addition) == addition.name else addition)
    source, strides = unstrided(shortcut)
    if before(branch, source):
        return Block(at, "add_identity", addition, branch, source, strides)
    if (amounts := channel_padding(shortcut)) is not None:
        source, strides = unstrided(source_of(shortcut))
        if before(branch, source):
            return Block(at, "add_identity", addition, branch, source, strides, zeros=amounts)
        return None
    norm = shortcut if norm_of(network, shortcut) is not None else None
    inner = source_of(norm) if norm is not None else shortcut
    layer = convolution_of(network, inner)
    if layer is None or layer.groups > 1 or set(layer.kernel_size) != {1} or not reads_centre(layer):
        return None
    source, strides = unstrided(source_of(inner))
    strides = tuple(a * b for a, b in zip(strides, layer.stride, strict=True))
    if not before(branch, source):
        return None
    return Block(at, "add_projection", addition, branch, source, strides, inner, norm)


def steps(network: LayeredNetwork, block: Block) -> tuple[Step, ...] | str:
    """Return the linear layers of a block's branch, first to last, or why it is not a plain chain of them."""
    found: list[Step] = []
    node, activation = block.branch, None
    while True:
        norm = node if norm_of(network, node) is not None else None
        inner = source_of(norm) if norm is not None else node
        if norm is not None and inner is block.source and activation is not None:
            return (Step(None, norm, activation), *reversed(found))
        if convolution_of(network, inner) is None:
            return f"{_called(inner)} in the branch is no convolution"
        found.append(Step(inner, norm, activation))
        activation = source_of(inner)
        if activation is block.source:
            return tuple(reversed(found))
        if activation.op != "call_function" or len(activation.all_input_nodes) != 1:
            return f"{_called(activation)} in the branch does not pass copies on"
        node = source_of(activation)


def reads_centre(layer: Convolution) -> bool:
    """Return True if the kernel's centre meets exactly every stride-th pixel, beginning with the first."""
    window = window_of(layer)
    if window is None:
        return False
    sizes = zip(window.kernel, window.dilation, window.padding, strict=True)
    return all(k % 2 == 1 and p == d * (k - 1) // 2 for k, d, p in sizes)


def folded(layer: Convolution, norm: Norm | None) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a convolution and the batch norm behind it, as in `_algebra`."""
    if norm is not None:
        return folded_behind(layer.weight, layer.bias, *scale_and_shift(norm))
    return exact(layer.weight), None if layer.bias is None else exact(layer.bias)


def with_kernel(layer: Convolution, weight: Tensor, bias: Tensor | None, **changes: Any) -> Convolution:
    """Return a convolution like `layer` with another kernel, and whatever else of its `Window` changes."""
    window = window_of(layer)
    assert window is not None
    groups = changes.get("groups", window.groups)
    kernel = tuple(weight.shape[2:])
    changes |= {"outputs": len(weight), "inputs": weight.shape[1] * groups, "kernel": kernel}
    made = new_layer(layer, replace(window, **changes))
    store(made, weight, bias, layer)
    assert isinstance(made, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    return made


def unstrided(node: fx.Node) -> tuple[fx.Node, tuple[int, ...]]:
    """Return what `node` takes every n-th pixel of, and n per image direction."""
    strides = [1] * (len(shape_of(node)) - 2)
    while name_of(node) == "slice":
        call = bind(node)
        dim, source = int(call["dim"]) % len(shape_of(node)), source_of(node)
        to_the_end = call["end"] is None or (
            isinstance(call["end"], int) and call["end"] >= shape_of(source)[dim]
        )
        if call["start"] not in (None, 0) or not to_the_end or (dim < 2 and call["step"] != 1):
            break
        if dim >= 2:
            strides[dim - 2] *= int(call["step"])
        node = source
    return node, tuple(strides)


def channel_padding(node: fx.Node) -> tuple[int, int] | None:
    """Return how many zero channels a padding adds before and behind, None if it does anything else."""
    if name_of(node) not in ("pad", "constant_pad_nd"):
        return None
    call = bind(node)
    amounts = [int(a) for a in call["pad"]]
    channel = 2 * (len(shape_of(node)) - 2)
    plain = call.get("mode") in (None, "constant") and not call.get("value")
    if not plain or any(a != 0 for i, a in enumerate(amounts) if i not in (channel, channel + 1)):
        return None
    ahead, behind = (amounts[channel], amounts[channel + 1]) if len(amounts) > channel + 1 else (0, 0)
    return (ahead, behind) if min(ahead, behind) >= 0 else None


def strided(network: LayeredNetwork, node: fx.Node, strides: tuple[int, ...]) -> fx.Node:
    """Return a new value: every n-th pixel of `node`, n per image direction."""
    dtype = dtype_of(node)
    for dim, step in enumerate(strides, 2):
        if step > 1:
            size = list(shape_of(node))
            size[dim] = -(-size[dim] // step)
            with network.graph.inserting_after(node):
                node = network.graph.call_function(
                    torch.ops.aten.slice.Tensor, (node, dim, 0, torch.iinfo(torch.int64).max, step)
                )
            node.meta["val"] = torch.empty(size, dtype=dtype, device="meta")
    return node


def put(network: LayeredNetwork, step: Step, layer: Convolution) -> None:
    """Let `layer` do what the step's convolution and norm did."""
    network.set_submodule(str(step.layer.target), layer)
    resized(step.layer, layer.out_channels)
    if step.norm is not None and step.norm is not step.layer:
        step.norm.replace_all_uses_with(step.layer)


def resized(node: fx.Node, channels: int) -> fx.Node:
    """Note that a value has another number of channels now, and return it."""
    size = list(shape_of(node))
    node.meta["val"] = torch.empty([size[0], channels, *size[2:]], dtype=dtype_of(node), device="meta")
    return node


def _called(node: fx.Node) -> str:
    name = name_of(node) or str(node.target)
    return repr(name) if node.op != "placeholder" else "the input"
