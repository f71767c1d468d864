"""What takes the place of a `ChannelCopy`: a sum, a 1×1 convolution, a look-up, a wider convolution."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, fx, nn

from billhook.fuse._algebra import exact
from billhook.fuse._kernels import centred
from billhook.fuse._match import (
    CONVOLUTIONS,
    alone,
    convolution_of,
    free_name,
    module_of,
    name_of,
    shaped_like,
    source_of,
)
from billhook.fuse.copies import ChannelCopy
from billhook.fuse.passes._blocks import reads_centre, resized, unstrided, with_kernel
from billhook.graph.fusions import tidy
from billhook.graph.layers import LayeredNetwork, put
from billhook.graph.rules._base import shape_of

Form = Literal["sum", "pointwise", "gather", "concat"]
FORMS: tuple[Form, ...] = get_args(Form)


def is_copy(network: LayeredNetwork, node: fx.Node) -> bool:
    """Return True if `node` calls a `ChannelCopy`."""
    return isinstance(module_of(network, node), ChannelCopy)


def block_of_copy(node: fx.Node) -> str:
    """Return the name of the block that a copy belongs to."""
    return str(node.target).rpartition(".")[0]


def _layer(network: LayeredNetwork, node: fx.Node) -> ChannelCopy:
    layer = module_of(network, node)
    assert isinstance(layer, ChannelCopy)
    return layer


def picked_by(network: LayeredNetwork, node: fx.Node) -> tuple[Tensor, Tensor]:
    """Return what a `ChannelCopy` does as channel numbers [n], and as the matrix [n, channels] that it is."""
    layer = _layer(network, node)
    numbers = torch.where(layer.gate == 0, -1, torch.arange(len(layer.gate), device=layer.index.device))
    none = numbers.new_full((1,), -1)  # what the number -1 finds, at the end
    numbers = torch.cat((numbers, none))[layer.index]
    return numbers, matrix(numbers, len(layer.gate)).to(layer.gate) * layer.gate


def matrix(numbers: Tensor, channels: int) -> Tensor:
    """Return the matrix [n, channels] of zeros and ones that picks channels by number."""
    picked = torch.zeros(len(numbers), channels + 1, device=numbers.device)
    picked[torch.arange(len(numbers), device=numbers.device), numbers] = 1  # -1 is the last column
    return picked[:, :channels]


def compose(network: LayeredNetwork) -> None:
    """Let every copy of copies read the original channels."""
    for node in [n for n in network.graph.nodes if is_copy(network, n)]:
        inner = source_of(node)
        if is_copy(network, inner):
            outer, first = _layer(network, node), _layer(network, inner)
            # A factor of a copy is one of its channel, as far as no two copies of it have others.
            gate = first.gate.clone()
            taken = first.index >= 0
            gate[first.index[taken]] *= outer.gate[taken]
            index = torch.cat((first.index, first.index.new_full((1,), -1)))[outer.index]
            network.set_submodule(str(node.target), ChannelCopy(index, gate))
            node.replace_input_with(inner, source_of(inner))
    tidy(network)


def is_identity(numbers: Tensor, picked: Tensor) -> bool:
    """Return True if the copies are all channels in their order and nothing else, or none at all."""
    return is_plain(numbers, picked) and (len(numbers) == picked.shape[1] or not bool((numbers >= 0).any()))


def is_plain(numbers: Tensor, picked: Tensor) -> bool:
    """Return True if the copies are all channels in their order, or none, maybe among zeros on both sides."""
    real, channels = numbers[numbers >= 0], picked.shape[1]
    if not len(real):
        return True
    start = int((numbers >= 0).nonzero()[0])
    whole = len(real) == channels and torch.equal(real, torch.arange(channels, device=real.device))
    ones = bool((picked.sum(1)[numbers >= 0] == 1).all())
    return whole and ones and torch.equal(numbers[start : start + channels], real)


def lower_copy(network: LayeredNetwork, node: fx.Node, form: Form) -> None:
    """Put `form` in the place of a copy, or what comes next to it where that cannot be.

    All channels in their order need no operator, none leave no sum; "sum" is for those that are all there
    with zeros around them. Factors other than one need a convolution.
    """
    numbers, picked = picked_by(network, node)
    if is_identity(numbers, picked) or (form == "sum" and is_plain(numbers, picked)):
        _as_it_was(network, node, numbers, picked.shape[1])
        return
    scaled = not bool((picked.sum(1)[numbers >= 0] == 1).all())
    if _read_by_convolutions(network, node) and (scaled or form != "gather"):
        _widen_readers(network, node, picked)
    elif form == "gather" and not scaled:
        replace(node, _channels_of(network, node, source_of(node), numbers))
    elif form != "concat" or scaled or not _concatenate(network, node, numbers, picked.shape[1]):
        _pointwise(network, node, picked)


def _read_by_convolutions(network: LayeredNetwork, node: fx.Node) -> bool:
    """Return True if only convolutions read a copy, whose weights may change and who read all channels."""
    readers = [convolution_of(network, u) if alone(network, u) else None for u in node.users]
    return bool(readers) and all(r is not None and r.groups == 1 for r in readers)


def _as_it_was(network: LayeredNetwork, node: fx.Node, numbers: Tensor, channels: int) -> None:
    """Put the channels themselves in the place of copies of all of them, nothing in the place of none."""
    source = source_of(node)
    if not bool((numbers >= 0).any()):
        for add in [u for u in node.users if name_of(u) == "add"]:
            other = next((a for a in add.args if isinstance(a, fx.Node) and a is not node), None)
            if other is not None and other.meta["val"].dtype == add.meta["val"].dtype:
                add.replace_all_uses_with(other)
                network.graph.erase_node(add)
        if node.users:
            with network.graph.inserting_before(node):
                zeros = network.graph.call_function(torch.ops.aten.sub.Tensor, (source, source))
            replace(node, _channels_of(network, node, shaped_like(zeros, source), numbers))
        return
    start = int((numbers >= 0).nonzero()[0])
    behind = len(numbers) - start - channels
    replace(node, _padded(network, node, source, start, behind) if start or behind else source)


def _padded(network: LayeredNetwork, node: fx.Node, x: fx.Node, ahead: int, behind: int) -> fx.Node:
    amounts = [0, 0] * (len(shape_of(x)) - 2) + [ahead, behind]
    with network.graph.inserting_before(node):
        padded = network.graph.call_function(torch.ops.aten.pad.default, (x, amounts))
    return resized(shaped_like(padded, x), shape_of(x)[1] + ahead + behind)


def _channels_of(network: LayeredNetwork, node: fx.Node, x: fx.Node, numbers: Tensor) -> fx.Node:
    """Look the channels up by number; a channel of zeros behind the others is what -1 finds."""
    channels = shape_of(x)[1]
    if bool((numbers < 0).any()):
        x = _padded(network, node, x, 0, 1)
    name = free_name(network, f"{block_of_copy(node)}.channels")
    put(network, name, torch.where(numbers < 0, channels, numbers))
    with network.graph.inserting_before(node):
        index = network.graph.get_attr(name)
        found = network.graph.call_function(torch.ops.aten.index_select.default, (x, 1, index))
    return shaped_like(found, node)


def _pointwise(network: LayeredNetwork, node: fx.Node, picked: Tensor) -> None:
    """Put a 1×1 convolution of zeros and ones in the place of copies; it takes strides along."""
    origin, strides = unstrided(source_of(node))
    name = free_name(network, f"{block_of_copy(node)}.shortcut")
    network.add_submodule(name, _selecting(picked, strides))
    with network.graph.inserting_before(node):
        replace(node, shaped_like(network.graph.call_module(name, (origin,)), node))


def _selecting(picked: Tensor, strides: tuple[int, ...]) -> nn.Module:
    out, channels = picked.shape
    layer = CONVOLUTIONS[len(strides) + 2](channels, out, 1, stride=strides, bias=False)  # type: ignore[arg-type]
    layer.weight = nn.Parameter(picked.view(layer.weight.shape), requires_grad=False)
    return layer


def _widen_readers(network: LayeredNetwork, node: fx.Node, picked: Tensor) -> None:
    """Let convolutions that read copies read all channels; weights of those that were not copied are zero."""
    for user in list(node.users):
        old = convolution_of(network, user)
        assert old is not None
        weight = torch.einsum("oi...,ic->oc...", exact(old.weight), exact(picked))
        bias = None if old.bias is None else exact(old.bias)
        network.set_submodule(str(user.target), with_kernel(old, weight, bias))
        user.replace_input_with(node, source_of(node))


def _concatenate(network: LayeredNetwork, node: fx.Node, numbers: Tensor, channels: int) -> bool:
    """Let the convolution before the sum read the copied channels as well; return False if that cannot be."""
    add = next(iter(node.users), None)
    if add is None or len(node.users) > 1 or name_of(add) != "add":
        return False
    branch = next((a for a in add.args if isinstance(a, fx.Node) and a is not node), None)
    layer = convolution_of(network, branch)
    if (
        branch is None
        or layer is None
        or len(branch.users) > 1
        or not alone(network, branch)
        or layer.groups > 1
        or isinstance(layer.padding, str)
    ):
        return False
    if not reads_centre(layer) or set(layer.stride) != {1}:
        return False
    used = sorted(set(numbers[numbers >= 0].tolist()))
    picked = numbers if len(used) < channels // 2 else None  # few channels are looked up first
    x = source_of(node)
    if picked is not None:
        x = _channels_of(network, node, x, torch.tensor(used, device=numbers.device))
        resized(x, len(used))
        place = {c: i for i, c in enumerate(used)}
        numbers = torch.tensor([place.get(int(c), -1) for c in numbers], device=numbers.device)
        channels = len(used)
    centre = centred(matrix(numbers, channels), layer.kernel_size)
    bias = None if layer.bias is None else exact(layer.bias)
    wider = with_kernel(layer, torch.cat((exact(layer.weight), centre), 1), bias)
    network.set_submodule(str(branch.target), wider)
    inner = source_of(branch)
    with network.graph.inserting_before(add):  # what the shortcut reads may come after the convolution
        joined = network.graph.call_function(torch.ops.aten.cat.default, ([inner, x], 1))
        wide = shaped_like(network.graph.call_module(str(branch.target), (joined,)), branch)
    resized(shaped_like(joined, inner), wider.in_channels)
    replace(add, wide)
    network.graph.erase_node(branch)
    return True


def replace(node: fx.Node, other: fx.Node) -> None:
    """Let everybody who reads `node` read `other`, and erase it."""
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)
