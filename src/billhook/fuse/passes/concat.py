"""A layer that reads a concatenation becomes one layer per part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from billhook.fuse._algebra import exact
from billhook.fuse._match import free_name, shaped_like
from billhook.fuse.passes._folding import (
    calls_of,
    channel_axis,
    new_layer,
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
    title="a convolution of a concatenation as a sum of convolutions",
    source="Li et al., TCAD 39(11) 2020, arXiv:2010.16165",
    notes="reconstructed; only with keep_if=always",
)


class Concat(Pass):
    """A layer over [a, b, …] becomes a sum of layers: A(a) + B(b) + ….

    The weight is cut along its inputs; the first part keeps the layer's name and bias. MACs and weights
    stay the same, but on every runtime it takes one more layer and addition per part, so it is only done with
    keep_if="always". Convolutions that read a concatenation of channels, and linear layers that read one
    of features.

    With add_form="concat" nothing is rewritten: it makes such layers on purpose.

    References:
        Li, Ma, Wang, Liu, Xue, Feng, "Fusion-Catalyzed Pruning for Optimizing Deep Learning on
        Intelligent Edge Devices", IEEE TCAD 39(11), 2020. arXiv:2010.16165.
    Differs from the source:
        Reconstructed; rule A7. Its other half, layers side by side as one, is a part of `parallel`.
    """

    kind = "widen"
    operators = ("concat",)

    def find(self, network: LayeredNetwork, settings: Mapping[str, Any]) -> Iterator[Site | Refusal]:  # noqa: D102
        if settings.get("keep_if", "cost") != "always" or settings.get("add_form", "chain") == "concat":
            return
        calls = calls_of(network)
        for node, parts in _places(network):
            layer, joined, at = weighted_of(network, node), node.all_input_nodes[0], str(node.target)
            if layer is None or window_of(layer) is None:
                yield Refusal(at, "concat", f"{at} pads one side more than the other")
            elif getattr(layer, "groups", 1) > 1:
                yield Refusal(at, "concat", f"{at} is grouped, so its inputs cannot be told apart")
            elif calls[node.target] > 1:
                yield Refusal(at, "concat", f"{at} is called more than once")
            elif len(joined.users) > 1:
                yield Refusal(at, "concat", "the concatenation is read by others, too, so it has to stay")
            elif len(parts) > 1:
                yield Site(at, "concat", {"keep_if": "always"}, match=(node, parts))

    def rewrite(self, network: LayeredNetwork, site: Site) -> None:  # noqa: D102
        _split(network, *site.match)


def _places(network: LayeredNetwork) -> Iterator[tuple[fx.Node, list[fx.Node]]]:
    """Yield (layer, parts) for layers that read a concatenation of channels or features."""
    for node in list(network.graph.nodes):
        layer = weighted_of(network, node)
        if layer is None:
            continue
        joined = node.all_input_nodes[0]
        found = parts_of(joined)
        if found is not None and found[1] == channel_axis(layer, joined):
            yield node, found[0]


def _split(network: LayeredNetwork, node: fx.Node, parts: list[fx.Node]) -> None:
    layer = weighted_of(network, node)
    assert layer is not None
    window = window_of(layer)
    assert window is not None
    axis = channel_axis(layer, node.all_input_nodes[0])
    total: fx.Node | None = None
    start = 0
    for i, part in enumerate(parts):
        count = shape_of(part)[axis]
        weight = exact(layer.weight)[:, start : start + count]
        start += count
        made = new_layer(layer, replace(window, inputs=count))
        store(made, weight, None if i or layer.bias is None else exact(layer.bias), layer)
        name = str(node.target) if i == 0 else free_name(network, str(node.target))
        if i == 0:
            network.set_submodule(name, made)
        else:
            network.add_submodule(name, made)
        with network.graph.inserting_before(node):
            term = shaped_like(network.graph.call_module(name, (part,)), node)
            if total is not None:
                sum_of_terms = network.graph.call_function(torch.ops.aten.add.Tensor, (total, term))
                term = shaped_like(sum_of_terms, node)
        total = term
    assert total is not None
    node.replace_all_uses_with(total)


ENTRY = Concat()
