"""What folding passes ask about layers with weights, and how they change them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn

from billhook.fuse._algebra import Window
from billhook.fuse._match import Convolution, Norm, module_of, name_of
from billhook.graph.branches import summands
from billhook.graph.layers import LayeredNetwork
from billhook.graph.rules._base import bind, shape_of

Weighted = Convolution | nn.Linear


def weighted_of(network: LayeredNetwork, node: Any) -> Weighted | None:
    """Return the convolution or linear layer that `node` calls, None if it calls another layer or none."""
    layer = module_of(network, node)
    return layer if isinstance(layer, Weighted) else None


def linear_of(network: LayeredNetwork, node: Any) -> Weighted | Norm | None:
    """Return the convolution, linear layer or batch norm that `node` calls, None if it calls none of them."""
    layer = module_of(network, node)
    return layer if isinstance(layer, Weighted | Norm) else None


def calls_of(network: LayeredNetwork) -> Counter[Any]:
    """Return how often each layer is called."""
    return Counter(n.target for n in network.graph.nodes if n.op == "call_module")


def channel_axis(layer: nn.Module, node: fx.Node) -> int:
    """Return the dimension of the value of `node`, read or made by `layer`, that holds the channels."""
    return len(shape_of(node)) - 1 if isinstance(layer, nn.Linear) else 1


def occupied(calls: Counter[Any], node: fx.Node) -> str | None:
    """Return why the layer that `node` calls cannot change for its only reader, None if it can."""
    if calls[node.target] > 1:
        return f"{node.target} is called more than once"
    return f"{node.target} is read by others, too" if len(node.users) > 1 else None


def addends(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """Return the two different values of one shape and type that `node` adds, None if it adds none."""
    found = summands(node)
    if not found or shape_of(found[0]) != shape_of(node):
        return None
    a, b = found
    return (a, b) if a is not b and dtype_of(a) == dtype_of(b) else None


def parts_of(node: fx.Node) -> tuple[list[fx.Node], int] | None:
    """Return the different values that `node` puts side by side, and along which dimension; else None."""
    if name_of(node) != "cat":
        return None
    call = bind(node)
    parts = list(call["tensors"])
    return (parts, int(call["dim"]) % len(shape_of(node))) if len(set(parts)) == len(parts) else None


def dtype_of(node: fx.Node) -> torch.dtype | None:
    """Return the type of the numbers of a value."""
    value = node.meta.get("val")
    return value.dtype if isinstance(value, Tensor) else None


def window_of(layer: Weighted) -> Window | None:
    """Return what a layer reads for one output, None if it pads one side more than the other."""
    if isinstance(layer, nn.Linear):
        return Window(layer.out_features, layer.in_features, (), (), (), ())
    padding = layer.padding
    if isinstance(padding, str):
        wanted = [
            d * (k - 1) * (padding == "same") for d, k in zip(layer.dilation, layer.kernel_size, strict=True)
        ]
        if any(w % 2 for w in wanted):
            return None
        padding = tuple(w // 2 for w in wanted)
    return Window(
        layer.out_channels,
        layer.in_channels,
        tuple(layer.kernel_size),
        tuple(layer.stride),
        tuple(padding),
        tuple(layer.dilation),
        layer.groups,
    )


def new_layer(old: Weighted, window: Window) -> Weighted:
    """Return a layer of the kind of `old` without weights; `store` gives it some."""
    if isinstance(old, nn.Linear):
        made: Weighted = nn.Linear(window.inputs, window.outputs, bias=False, device="meta")
    else:
        made = type(old)(
            window.inputs,
            window.outputs,
            window.kernel,  # type: ignore[arg-type]
            stride=window.stride,  # type: ignore[arg-type]
            padding=window.padding,  # type: ignore[arg-type]
            dilation=window.dilation,  # type: ignore[arg-type]
            groups=window.groups,
            bias=False,
            device="meta",
        )
    for name, child in old.named_children():  # a user's convolution may hold other layers
        made.add_module(name, child)
    return made.train(old.training)


def store(layer: Weighted | Norm, weight: Tensor, bias: Tensor | None, like: Weighted | Norm) -> None:
    """Give `layer` a weight and a bias with device, type and requires_grad of those of `like`."""
    model = like.weight if like.weight is not None else like.running_mean
    assert isinstance(model, Tensor)
    for name, value in (("weight", weight), ("bias", bias)):
        old = getattr(like, name)
        old = model if old is None else old
        layer._parameters.pop(name, None)
        layer._buffers.pop(name, None)
        if value is None:
            layer.register_parameter(name, None)
            continue
        cast = value.to(old.device, old.dtype)
        layer.register_parameter(name, nn.Parameter(cast, old.requires_grad))
