"""The concat form of a shortcut: the last convolution of a block reads the block's input, too."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import fx

from billhook.fuse._algebra import total
from billhook.fuse._kernels import centred
from billhook.fuse._match import convolution_of, norm_of, source_of
from billhook.fuse.passes._blocks import Block, Step, folded, put, reads_centre, resized, strided, with_kernel
from billhook.fuse.passes._folding import dtype_of, occupied
from billhook.graph.layers import LayeredNetwork
from billhook.graph.rules._base import shape_of


def concat_obstacle(
    network: LayeredNetwork, block: Block, convolution: fx.Node, calls: Counter[Any]
) -> str | None:
    """Return why the branch's last convolution cannot read x, too, None if it can."""
    layer = convolution_of(network, convolution)
    assert layer is not None
    for node in (convolution, block.branch, block.projection, block.norm):
        if node is not None and (why := occupied(calls, node)) is not None:
            return why
    if layer.groups > 1:
        return f"{convolution.target} is grouped, so the shortcut has no place among its inputs"
    if not reads_centre(layer):
        return f"{convolution.target} does not read every n-th pixel in its kernel's centre"
    steps_before = _quotients(block.strides, layer.stride)
    if steps_before is None:
        return f"{convolution.target} moves in steps of {layer.stride}, the shortcut of {block.strides}"
    image = shape_of(block.source)[2:]
    if (
        tuple(-(-n // s) for n, s in zip(image, steps_before, strict=True))
        != shape_of(source_of(convolution))[2:]
    ):
        return f"{convolution.target} reads an image of another size than the shortcut does"
    if dtype_of(source_of(convolution)) != dtype_of(block.source):
        return f"{convolution.target} computes in another precision than the shortcut"
    return None


def concatenate(network: LayeredNetwork, block: Block) -> None:
    """Let the branch's last convolution read x, too; the addition goes."""
    norm = block.branch if norm_of(network, block.branch) is not None else None
    node = block.branch if norm is None else source_of(block.branch)
    layer = convolution_of(network, node)
    assert layer is not None
    steps_before = _quotients(block.strides, layer.stride)
    assert steps_before is not None
    inner, copied = source_of(node), strided(network, block.source, steps_before)
    with network.graph.inserting_before(node):
        joined = network.graph.call_function(torch.ops.aten.cat.default, ([inner, copied], 1))
    joined.meta["val"] = inner.meta["val"]
    resized(joined, shape_of(inner)[1] + block.channels)
    node.replace_input_with(inner, joined)
    weight, bias = folded(layer, norm_of(network, norm))
    matrix, shift = block.matrix(network)
    weight = torch.cat((weight, centred(matrix, weight.shape[2:])), 1)
    put(network, Step(node, norm, None), with_kernel(layer, weight, total(bias, shift)))
    block.addition.replace_all_uses_with(node)


def _quotients(values: tuple[int, ...], divisors: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the quotients, None if a division leaves a rest."""
    pairs = list(zip(values, divisors, strict=True))
    return None if any(v % d for v, d in pairs) else tuple(v // d for v, d in pairs)
