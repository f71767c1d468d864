"""Shortcuts become lists of copied channels: every block's output is a choice of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx

from billhook.fuse._match import convolution_of, free_name, module_of, norm_of, shaped_like, source_of
from billhook.fuse.copies import ChannelCopy
from billhook.fuse.passes._blocks import Block, blocks
from billhook.fuse.passes._folding import dtype_of
from billhook.fuse.proof import in_place_operator, nonnegative
from billhook.graph.fusions import Pass, Refusal, Site
from billhook.graph.layers import LayeredNetwork
from billhook.registry import Info

INFO = Info(
    title="shortcuts as symbolic copies, prunable channel by channel",
    source="Li et al., TCAD 39(11) 2020, arXiv:2010.16165",
    notes="reconstructed: only the abstract of the paper could be read",
)


class Shortcut(Pass):
    """y = F(x) + S(x) becomes y = F(x) + P(C(x)): C copies channels of x, P puts them in their places.

    In the chain form of the paper the copies are further filters of F's first convolution, with rows of the
    identity as weights, and further inputs of its last one. Two `ChannelCopy` layers are the same as numbers
    instead of weights, at no multiplication: the first one's entries are those filters, a group that can
    be pruned one by one; the second one's entries say which output each of them is added to. x and y no
    longer share channels, so the blocks of a stage come apart. It holds for inputs of any sign, because no
    copy passes through an activation until it is lowered to filters.

    Shortcuts are x itself, x with a stride and padded with zeros ("option A"), and projections: a 1×1
    convolution of x, in front of which the copies stand.

    References:
        Li, Ma, Wang, Liu, Xue, Feng, "Fusion-Catalyzed Pruning for Optimizing Deep Learning on
        Intelligent Edge Devices", IEEE TCAD 39(11), 2020. arXiv:2010.16165.
    Differs from the source:
        Reconstructed; rules A1 to A4 in symbolic form.
    """

    kind = "widen"
    operators = ("add_identity", "add_projection")

    def find(self, network: LayeredNetwork, settings: Mapping[str, Any]) -> Iterator[Site | Refusal]:  # noqa: D102
        if settings.get("add_form", "chain") != "chain" or settings.get("copies", "symbolic") != "symbolic":
            return
        changer = in_place_operator(network.graph)
        for block in blocks(network):
            if isinstance(module_of(network, _carrier(block)), ChannelCopy):
                continue
            inner = source_of(block.branch) if norm_of(network, block.branch) is not None else block.branch
            if changer is not None:
                yield Refusal(block.at, block.operator, str(nonnegative(network, block.source)))
            elif convolution_of(network, inner) is None:
                why = "the branch does not end in a convolution, so its channels are not known"
                yield Refusal(block.at, block.operator, why)
            else:
                yield Site(block.at, block.operator, match=block)

    def rewrite(self, network: LayeredNetwork, site: Site) -> None:  # noqa: D102
        _rewrite(network, site.match)


def _shortcut(block: Block) -> fx.Node:
    """Return what is added to the branch."""
    return next(a for a in block.addition.all_input_nodes if a is not block.branch)


def _carrier(block: Block) -> fx.Node:
    """Return the value that the shortcut takes its channels from, strides included."""
    if block.projection is not None:
        return source_of(block.projection)
    return source_of(_shortcut(block)) if any(block.zeros) else _shortcut(block)


def _rewrite(network: LayeredNetwork, block: Block) -> None:
    source, shortcut, channels = _carrier(block), _shortcut(block), block.channels
    like = next(iter(network.parameters()), torch.zeros(0))
    numbers = torch.arange(channels, device=like.device)
    ones = torch.ones(channels, device=like.device, dtype=dtype_of(source))
    copies = _insert(network, source, f"{block.at}.copies", ChannelCopy(numbers, ones, ones.clone()))
    shaped_like(copies, source)
    if block.projection is not None:
        block.projection.replace_input_with(source, copies)
        return
    ahead, behind = (numbers.new_full((n,), -1) for n in block.zeros)
    places = ChannelCopy(torch.cat((ahead, numbers, behind)), ones.clone())
    placed = shaped_like(_insert(network, copies, f"{block.at}.place", places), shortcut)
    block.addition.replace_input_with(shortcut, placed)


def _insert(network: LayeredNetwork, x: fx.Node, wanted: str, layer: ChannelCopy) -> fx.Node:
    name = free_name(network, wanted)
    network.add_submodule(name, layer.train(network.training))
    with network.graph.inserting_after(x):
        return network.graph.call_module(name, (x,))


ENTRY = Shortcut()
