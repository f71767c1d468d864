"""Layers side by side on one input become one layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from billhook.fuse._algebra import (
    Window,
    embedded,
    exact,
    joined,
    pixel,
    scale_and_shift,
    side_by_side,
    total,
)
from billhook.fuse.passes._folding import (
    Weighted,
    addends,
    calls_of,
    channel_axis,
    linear_of,
    new_layer,
    occupied,
    parts_of,
    store,
    weighted_of,
    window_of,
)
from billhook.graph.fusions import Pass, Refusal, Site
from billhook.graph.layers import LayeredNetwork
from billhook.graph.rules._base import shape_of
from billhook.registry import Info

INFO = Info(
    title="parallel convolutions, identities and batch norms as one convolution",
    source="Ding et al., RepVGG, CVPR 2021, arXiv:2101.03697",
    notes="never more MACs than the layers that it replaces",
)


class Parallel(Pass):
    """A(x) + B(x) becomes one layer, and so do A(x) and B(x) put side by side.

    For a sum, both kernels are written into one that reads what both read: a 1×1 kernel goes to the centre
    of a 3×3 one, x itself is a kernel of ones and zeros, and a batch norm of x is that kernel, scaled. It is
    exact where both windows have one stride and the common one makes an output of the same size. Where
    it takes more MACs than the two (1×3 and 3×1 become 3×3), they stay. Side by side, filters are stacked if
    both windows are the same. Linear layers likewise.

    More than two are merged in turn. The merged layer has the name of the one with more MACs.

    References:
        Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021, section 3.3.
        Ding et al., "Diverse Branch Block: Building a Convolution as an Inception-like Unit", CVPR 2021,
        transforms II, IV and VI.
    Differs from the source:
        Any windows, dilations and groups whose common kernel takes no more MACs.
    """

    kind = "fold"
    operators = ("parallel", "concat")

    def find(self, network: LayeredNetwork, settings: Mapping[str, Any]) -> Iterator[Site | Refusal]:  # noqa: D102
        calls = calls_of(network)
        for node in network.graph.nodes:
            added, side = addends(node), parts_of(node)
            if added is not None:
                found = _sum(network, node, *added, calls)
                pairs = [] if found is None else [found]
            elif side is not None:
                neighbours = zip(side[0], side[0][1:], strict=False)
                pairs = [
                    p for a, b in neighbours if (p := _stack(network, node, a, b, side[1], calls)) is not None
                ]
            else:
                continue
            for found in pairs:
                if isinstance(found, Refusal):
                    yield found
                else:
                    yield Site(str(found.host.node.target), found.operator, match=found)

    def rewrite(self, network: LayeredNetwork, site: Site) -> None:  # noqa: D102
        merge: _Merge = site.match
        host, guest = merge.host, merge.guest
        old = host.layer
        assert isinstance(old, Weighted)
        made = new_layer(old, merge.window)
        weights = [_weight(b.layer, b.window) for b in (host, guest)]
        biases = [_bias(b.layer) for b in (host, guest)]
        if merge.operator == "concat":
            bias = side_by_side(biases[0], biases[1], (host.window.outputs, guest.window.outputs))
            store(made, torch.cat(weights), bias, like=old)
        else:
            placed = [
                embedded(w, b.window, merge.window) for w, b in zip(weights, (host, guest), strict=True)
            ]
            store(made, placed[0] + placed[1], total(biases[0], biases[1]), like=old)
        network.set_submodule(str(host.node.target), made)
        _rewire(merge)


@dataclass(frozen=True)
class _Branch:
    """One of the layers on a common input; the input itself has none."""

    node: fx.Node
    layer: Any
    window: Window


@dataclass(frozen=True)
class _Merge:
    """Two branches that become one layer, in place of `host`."""

    operator: str
    node: fx.Node
    host: _Branch
    guest: _Branch
    window: Window


def _sum(
    network: LayeredNetwork, node: fx.Node, a: fx.Node, b: fx.Node, calls: Counter[Any]
) -> _Merge | Refusal | None:
    """Return how two values that are added become one layer, None if they are no layers on one input."""
    x = _common_input(network, a, b)
    weighted = [n for n in (a, b) if n is not x and weighted_of(network, n) is not None]
    if x is None or not weighted:
        return None
    at = str(weighted[0].target)
    dimensions = 0 if isinstance(weighted_of(network, weighted[0]), nn.Linear) else len(shape_of(x)) - 2
    branches = []
    for value in (a, b):
        found = _branch(network, value, x, dimensions, calls)
        if isinstance(found, str):
            return Refusal(at, "parallel", found)
        branches.append(found)
    # The one with more MACs gives its name; a batch norm or the input itself never does.
    host, guest = sorted(
        branches, key=lambda v: (weighted_of(network, v.node) is None or v.node is x, -v.window.macs)
    )
    why, window = _common_window(host, guest, weighted, x, node)
    return Refusal(at, "parallel", why) if why else _Merge("parallel", node, host, guest, window)


def _common_input(network: LayeredNetwork, a: fx.Node, b: fx.Node) -> fx.Node | None:
    """Return what both values are computed from by at most one layer, None if there is no such value."""
    sources = [n.all_input_nodes[0] if linear_of(network, n) is not None else None for n in (a, b)]
    if sources[0] is b or sources[1] is a:
        return b if sources[0] is b else a
    return sources[0] if sources[0] is sources[1] else None


def _branch(
    network: LayeredNetwork, value: fx.Node, x: fx.Node, dimensions: int, calls: Counter[Any]
) -> _Branch | str:
    """Return a value as a layer on `x`, or why it cannot be merged with another."""
    axis = 1 if dimensions else len(shape_of(x)) - 1
    own = pixel(shape_of(x)[axis], dimensions)
    if value is x:
        return _Branch(value, None, own)
    layer = linear_of(network, value)
    assert layer is not None
    if (why := occupied(calls, value)) is not None:
        return why
    if channel_axis(layer, value) != axis:
        return f"{value.target} works along another dimension"
    window = window_of(layer) if isinstance(layer, Weighted) else own
    return (
        f"{value.target} pads one side more than the other"
        if window is None
        else _Branch(value, layer, window)
    )


def _common_window(
    host: _Branch, guest: _Branch, weighted: list[fx.Node], x: fx.Node, node: fx.Node
) -> tuple[str, Window]:
    """Return the window of the merged layer, and why it must not be used, "" if it may be."""
    a, b = host.window, guest.window
    names = " and ".join(str(n.target) for n in weighted)
    if a.stride != b.stride:
        return f"{names} moves at another stride than what is added to it", a
    if guest.layer is not None and _kind(host.layer) != _kind(guest.layer):
        return f"{names} have weights of different types or devices", a
    both = joined(a, b)
    first = len(shape_of(x)) - len(a.kernel)
    if both.image(shape_of(x)[first:]) != shape_of(node)[first:]:
        return f"{names}: no common window makes an output of this size", a
    replaced = sum(v.window.macs for v in (host, guest) if isinstance(v.layer, Weighted))
    if both.macs > replaced:
        return f"{names}: merged they take {both.macs} MACs per pixel instead of {replaced}", a
    return "", both


def _stack(
    network: LayeredNetwork, node: fx.Node, a: fx.Node, b: fx.Node, axis: int, calls: Counter[Any]
) -> _Merge | Refusal | None:
    """Return how two neighbours in a concatenation become one layer, None if they have no common input."""
    layers = [weighted_of(network, n) for n in (a, b)]
    first, second = layers
    if first is None or second is None or a.all_input_nodes[0] is not b.all_input_nodes[0]:
        return None
    at = str(a.target)
    if channel_axis(first, a) != axis or channel_axis(second, b) != axis:
        return None
    if (why := occupied(calls, a) or occupied(calls, b)) is not None:
        return Refusal(at, "concat", why)
    windows = [window_of(first), window_of(second)]
    if windows[0] is None or windows[1] is None:
        return Refusal(at, "concat", f"{a.target} or {b.target} pads one side more than the other")
    outputs = windows[0].outputs + windows[1].outputs
    if replace(windows[0], outputs=outputs) != replace(windows[1], outputs=outputs):
        return Refusal(at, "concat", f"{a.target} and {b.target} have different windows")
    if windows[0].groups > 1:
        return Refusal(at, "concat", f"the groups of {a.target} and {b.target} would mix")
    if _kind(first) != _kind(second):
        return Refusal(at, "concat", f"{a.target} and {b.target} have weights of different types or devices")
    stacked = replace(windows[0], outputs=outputs)
    return _Merge("concat", node, _Branch(a, first, windows[0]), _Branch(b, second, windows[1]), stacked)


def _kind(layer: Any) -> tuple[torch.dtype, torch.device]:
    """Return type and device of a layer's numbers."""
    tensor: Any = layer.running_mean if isinstance(layer, nn.modules.batchnorm._BatchNorm) else layer.weight
    return tensor.dtype, tensor.device


def _weight(layer: Any, window: Window) -> Tensor:
    """Return the weight of a layer, or of what can be seen as one."""
    if isinstance(layer, Weighted):
        return exact(layer.weight)
    scale = torch.ones(window.outputs, dtype=torch.float64) if layer is None else scale_and_shift(layer)[0]
    return scale.reshape(-1, 1, *window.kernel)


def _bias(layer: Any) -> Tensor | None:
    """Return the bias of a layer, or of what can be seen as one."""
    if layer is None or isinstance(layer, Weighted):
        return None if layer is None or layer.bias is None else exact(layer.bias)
    return scale_and_shift(layer)[1]


def _rewire(merge: _Merge) -> None:
    """Let the merged layer stand for the sum, or for both parts of the concatenation."""
    node, host = merge.node, merge.host.node
    if merge.operator == "parallel":
        node.replace_all_uses_with(host)
        return
    found = parts_of(node)
    assert found is not None
    parts = [p for p in found[0] if p is not merge.guest.node]
    value, shape = host.meta["val"], list(host.meta["val"].shape)
    shape[found[1]] = shape[found[1]] + merge.guest.node.meta["val"].shape[found[1]]
    host.meta["val"] = value.new_empty(shape)
    if len(parts) == 1:
        node.replace_all_uses_with(host)
    else:
        keyword = "tensors" in node.kwargs
        node.update_kwarg("tensors", parts) if keyword else node.update_arg(0, parts)


ENTRY = Parallel()
