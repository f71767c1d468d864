"""Shortcuts become lists of copied channels: every block's output is a choice of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx

from billhook.fuse._match import (
    additions,
    before,
    block_of,
    convolution_of,
    free_name,
    name_of,
    norm_of,
    shaped_like,
    source_of,
)
from billhook.fuse.copies import ChannelCopy
from billhook.graph.fusions import Pass, Refusal, Site
from billhook.graph.layers import LayeredNetwork
from billhook.graph.rules._base import bind, shape_of
from billhook.registry import Info

INFO = Info(
    title="shortcuts as symbolic copies, prunable channel by channel",
    source="Li et al., TCAD 39(11) 2020, arXiv:2010.16165",
    notes="reconstructed: only the abstract of the paper could be read",
)


class Shortcut(Pass):
    """y = F(x) + S(x) becomes y = F(x) + P(C(x)), where C copies channels of x and P puts them in their places.

    In the chain form of the paper the copies are further filters of F's first convolution, with rows of the
    identity as weights, and further inputs of its last one. Two `ChannelCopy` layers are the same as numbers
    instead of weights, at no multiplication: the first one's entries are those filters, a group that can
    be pruned one by one; the second one's entries say which output each of them is added to. x and y no
    longer share channels, so the blocks of a stage come apart. It holds for inputs of any sign, because no
    copy passes through an activation until it is lowered to filters.

    Shortcuts are x itself, x with a stride and padded with zeros ("option A"), and projections: a 1×1
    convolution of x, in front of which the copies stand.

    References:
        Li, Ma, Wang, Liu, Xue, Feng, "Fusion-Catalyzed Pruning for Optimizing Deep Learning on Intelligent Edge
        Devices", IEEE TCAD 39(11), 2020. arXiv:2010.16165.
    Differs from the source:
        Reconstructed; rules A1 to A4 in symbolic form.
    """

    kind = "widen"
    operators = ("add_identity", "add_projection")

    def find(self, network: LayeredNetwork, settings: Mapping[str, Any]) -> Iterator[Site | Refusal]:  # noqa: D102
        if (settings.get("add_form", "chain"), settings.get("copies", "symbolic")) != ("chain", "symbolic"):
            return
        for add, first, second in additions(network):
            for branch, shortcut in ((first, second), (second, first)):
                found = _site(network, add, branch, shortcut)
                if found is not None:
                    yield found
                    break

    def rewrite(self, network: LayeredNetwork, site: Site) -> None:  # noqa: D102
        for add, first, second in additions(network):
            for branch, shortcut in ((first, second), (second, first)):
                if _site(network, add, branch, shortcut) == site:
                    return _rewrite(network, add, branch, shortcut, site)
        raise AssertionError(f"no shortcut at {site.at}")


def _site(network: LayeredNetwork, add: fx.Node, branch: fx.Node, shortcut: fx.Node) -> Site | Refusal | None:
    """Return the place if `add` is a block's sum of what `branch` computes and its `shortcut`."""
    source, operator, _ = _shortcut(network, branch, shortcut)
    if source is None or not before(branch, _unstrided(source)) or _is_copy(network, source):
        return None
    at = block_of(branch if block_of(add) == add.name else add)
    if not _ends_in_convolution(network, branch):
        return Refusal(
            at, operator, "the branch does not end in a convolution, so its channels are not known"
        )
    if len(shape_of(source)) < 3:
        return None
    return Site(at, operator, {})


def _shortcut(
    network: LayeredNetwork, branch: fx.Node, node: fx.Node
) -> tuple[fx.Node | None, str, tuple[int, int]]:
    """Return what a shortcut copies, what kind it is, and how many zero channels it puts before and behind."""
    if before(branch, _unstrided(node)):
        return node, "add_identity", (0, 0)
    norm = norm_of(network, node)
    inner = node.args[0] if norm is not None else node
    convolution = convolution_of(network, inner)
    if convolution is not None and isinstance(inner, fx.Node):
        plain = convolution.groups == 1 and set(convolution.kernel_size) == {1}
        return (inner.args[0] if plain else None), "add_projection", (0, 0)  # type: ignore[return-value]
    if norm is not None:
        return None, "add_identity", (0, 0)
    places = (0, 0)
    if name_of(node) in ("pad", "constant_pad_nd"):
        amounts = _channel_padding(node)
        if amounts is None:
            return None, "add_identity", (0, 0)
        places = amounts
        node = node.args[0]  # type: ignore[assignment]
    return node, "add_identity", places


def _channel_padding(node: fx.Node) -> tuple[int, int] | None:
    """Return how many zero channels a padding adds before and behind, None if it does anything else."""
    call = bind(node)
    amounts = [int(a) for a in call["pad"]]
    channel = 2 * (len(shape_of(node)) - 2)
    plain = call.get("mode") in (None, "constant") and not call.get("value")
    if not plain or any(a != 0 for i, a in enumerate(amounts) if i not in (channel, channel + 1)):
        return None
    return (amounts[channel], amounts[channel + 1]) if len(amounts) > channel + 1 else (0, 0)


def _unstrided(node: fx.Node) -> fx.Node:
    """Return what `node` takes every n-th pixel of."""
    while name_of(node) == "slice" and shape_of(source_of(node))[1] == shape_of(node)[1]:
        node = source_of(node)
    return node


def _ends_in_convolution(network: LayeredNetwork, node: fx.Node) -> bool:
    inner = node.args[0] if norm_of(network, node) is not None else node
    return convolution_of(network, inner) is not None


def _is_copy(network: LayeredNetwork, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), ChannelCopy)


def _rewrite(network: LayeredNetwork, add: fx.Node, branch: fx.Node, shortcut: fx.Node, site: Site) -> None:
    source, operator, (ahead, behind) = _shortcut(network, branch, shortcut)
    assert source is not None
    channels = shape_of(source)[1]
    like = next(iter(network.parameters()), torch.zeros(0))
    numbers = torch.arange(channels, device=like.device)
    ones = torch.ones(channels, device=like.device, dtype=like.dtype)
    copies = ChannelCopy(numbers, ones, ones.clone())
    name = free_name(network, f"{site.at}.copies")
    network.add_submodule(name, copies)
    with network.graph.inserting_after(source):
        copied = shaped_like(network.graph.call_module(name, (source,)), source)
    if operator == "add_projection":
        inner = shortcut.args[0] if norm_of(network, shortcut) is not None else shortcut
        inner.replace_input_with(source, copied)  # type: ignore[union-attr]
        return
    nothing = numbers.new_full((1,), -1)
    place = free_name(network, f"{site.at}.place")
    numbers = torch.cat((nothing.repeat(ahead), numbers, nothing.repeat(behind)))
    network.add_submodule(place, ChannelCopy(numbers, ones.clone()))
    with network.graph.inserting_after(copied):
        placed = shaped_like(network.graph.call_module(place, (copied,)), shortcut)
    add.replace_input_with(shortcut, placed)


ENTRY = Shortcut()
