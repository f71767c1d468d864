"""Shortcuts become filters: a residual block without its addition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn

from billhook.fuse._algebra import scale_and_shift, side_by_side, total
from billhook.fuse._kernels import block_diagonal, centred, dirac
from billhook.fuse._match import (
    CONVOLUTIONS,
    Convolution,
    convolution_of,
    free_name,
    name_of,
    norm_of,
    source_of,
)
from billhook.fuse.passes._blocks import (
    Block,
    Step,
    blocks,
    folded,
    put,
    reads_centre,
    resized,
    steps,
    with_kernel,
)
from billhook.fuse.passes._concat_form import concat_obstacle, concatenate
from billhook.fuse.passes._folding import calls_of, occupied, store
from billhook.fuse.proof import Range, in_place_operator, inside, nonnegative, ranges, unchanged_by
from billhook.graph.capture import layer_of
from billhook.graph.fusions import Pass, Refusal, Site
from billhook.graph.layers import LayeredNetwork
from billhook.graph.rules._base import shape_of
from billhook.registry import Info

INFO = Info(
    title="shortcuts as filters of the block's own convolutions",
    source="Li et al., TCAD 39(11) 2020, arXiv:2010.16165",
    notes="reconstructed: only the abstract of the paper could be read",
)


class DenseShortcut(Pass):
    """y = F(x) + S(x) becomes one chain of wider convolutions; the addition goes.

    add_form="chain": the first convolution of F gets a filter per channel of x that copies it (a row of
    the identity in the kernel's centre), those in the middle pass the copies on, and the last one gets S as
    further inputs: the identity, zero padding ("option A") as a matrix, or a 1×1 projection with its bias.
    Copies that are no less than zero pass ReLUs unchanged, those up to six ReLU6, and so on. What x can
    be is proved from the graph. Where it could be negative, ReLU becomes a PReLU with slope 0 for the
    block's own channels and 1 for copies, which is exact for any sign; its slopes are constants, not weights,
    because training would bend the shortcut. A batch norm in front of the first convolution
    (pre-activation) becomes a 1×1 convolution that normalises x and copies it.

    add_form="concat": only the last convolution changes. It reads F's last activation and, behind it, x, so
    it needs no proof, and any operators may come before it.

    Batch norms of the block are folded, with their statistics as they are. Pruning a copy cuts a channel's
    shortcut; every block's output is a choice of its own. Before anything is pruned, MACs rise: 2 times for
    a basic block (1.5 with add_form="concat"), 15.6 times for a bottleneck of 256-64-256 channels.

    References:
        Li, Ma, Wang, Liu, Xue, Feng, "Fusion-Catalyzed Pruning for Optimizing Deep Learning on
        Intelligent Edge Devices", IEEE TCAD 39(11), 2020. arXiv:2010.16165.
    Differs from the source:
        Reconstructed; rules A1 to A4 and A8, and the concat form.
    """

    kind = "widen"
    operators = ("add_identity", "add_projection")

    def find(self, network: LayeredNetwork, settings: Mapping[str, Any]) -> Iterator[Site | Refusal]:  # noqa: D102
        form, copies = settings.get("add_form", "chain"), settings.get("copies", "symbolic")
        if form not in ("chain", "concat") or copies not in ("symbolic", "dense"):
            return
        if form == "chain" and copies == "symbolic":
            return
        changer = in_place_operator(network.graph)
        calls, known = calls_of(network), ranges(network)
        for block in blocks(network):
            convolution = (
                source_of(block.branch) if norm_of(network, block.branch) is not None else block.branch
            )
            if convolution_of(network, convolution) is not None and source_of(convolution) is block.source:
                continue  # one convolution beside the shortcut: two parallel layers, not a block
            if changer is not None:
                why: str | None = nonnegative(network, block.source, known)
            elif convolution_of(network, convolution) is None:
                why = "the branch does not end in a convolution, so its channels are not known"
            elif form == "chain":
                why = _chain_obstacle(network, block, calls, known[block.source])
            else:
                why = concat_obstacle(network, block, convolution, calls)
            if why is None:
                yield Site(block.at, block.operator, {"add_form": form, "copies": copies}, match=block)
            else:
                yield Refusal(block.at, block.operator, why)

    def rewrite(self, network: LayeredNetwork, site: Site) -> None:  # noqa: D102
        rewrite = concatenate if site.settings["add_form"] == "concat" else _lengthen
        rewrite(network, site.match)


def _chain_obstacle(network: LayeredNetwork, block: Block, calls: Counter[Any], x: Range) -> str | None:
    """Return why copies of x cannot travel through the branch, None if they can."""
    chain = steps(network, block)
    if isinstance(chain, str):
        return chain
    strides = (1,) * len(block.strides)
    for i, step in enumerate(chain):
        for node in (step.convolution, step.norm):
            if node is not None and (why := occupied(calls, node)) is not None:
                return why
        layer = convolution_of(network, step.convolution)
        if layer is not None:
            if not reads_centre(layer):
                return f"{step.layer.target} does not read every n-th pixel in its kernel's centre"
            passes = layer.groups == layer.in_channels == layer.out_channels and 0 < i < len(chain) - 1
            if layer.groups > 1 and not passes:
                return f"{step.layer.target} is grouped, so copies have no place among its channels"
            strides = tuple(a * b for a, b in zip(strides, layer.stride, strict=True))
        if step.activation is not None and (why := _activation_obstacle(network, block, step.activation, x)):
            return why
    if strides != block.strides:
        return f"the branch moves in steps of {strides}, the shortcut in steps of {block.strides}"
    if block.projection is not None:
        return next(
            (w for n in (block.projection, block.norm) if n is not None and (w := occupied(calls, n))), None
        )
    return None


def _activation_obstacle(network: LayeredNetwork, block: Block, node: fx.Node, x: Range) -> str | None:
    if len(node.users) > 1:
        return f"the result of {name_of(node)!r} inside the branch is read by others, too"
    unchanged = unchanged_by(node)
    if unchanged is None:
        return f"{name_of(node)!r} in the branch changes every value, copies too"
    if inside(x, unchanged) or name_of(node) == "relu":
        return None
    if x[0] < unchanged[0]:
        why = nonnegative(network, block.source) if unchanged[0] == 0 else "the block's input is not bounded"
        return f"{name_of(node)!r} would change negative copies: {why}"
    return f"{name_of(node)!r} would clip copies above {unchanged[1]:g}"


def _lengthen(network: LayeredNetwork, block: Block) -> None:
    chain, x = steps(network, block), ranges(network)[block.source]
    assert not isinstance(chain, str)
    for i, step in enumerate(chain):
        layer = _wider(network, block, step, first=i == 0, last=i == len(chain) - 1)
        put(network, step, layer)
        if i < len(chain) - 1:
            own = (layer.out_channels - block.channels, layer.out_channels)
            network.meta["own_filters"] = {
                **network.meta.get("own_filters", {}),
                f"{step.layer.target}.weight": own,
            }
        if step.activation is not None:
            _widen_activation(network, block, step, layer, x)
    block.addition.replace_all_uses_with(chain[-1].layer)


def _wider(network: LayeredNetwork, block: Block, step: Step, *, first: bool, last: bool) -> Convolution:
    """Return a step's layer and norm as one convolution that has copies of x as further channels."""
    layer, count, groups = convolution_of(network, step.convolution), block.channels, 1
    layer = _pointwise(network, step) if layer is None else layer
    weight, bias = folded(layer, norm_of(network, step.norm) if step.convolution is not None else None)
    own, kernel = len(weight), weight.shape[2:]
    if last:
        matrix, shift = block.matrix(network)
        return with_kernel(layer, torch.cat((weight, centred(matrix, kernel)), 1), total(bias, shift))
    if first:
        weight = torch.cat((weight, dirac(count, kernel)))
    elif layer.groups > 1:
        weight, groups = torch.cat((weight, dirac(count, kernel, depthwise=True))), own + count
    else:
        weight = block_diagonal(weight, dirac(count, kernel))
    return with_kernel(layer, weight, side_by_side(bias, None, (own, count)), groups=groups)


def _pointwise(network: LayeredNetwork, step: Step) -> Convolution:
    """Return a batch norm that stands alone as a 1×1 convolution."""
    norm = norm_of(network, step.norm)
    assert norm is not None
    make = CONVOLUTIONS[len(shape_of(step.layer))]
    layer: Convolution = make(norm.num_features, norm.num_features, 1, device="meta")
    scale, shift = scale_and_shift(norm)
    store(layer, centred(torch.diag(scale), layer.kernel_size), shift, norm)
    layer.train(norm.training)
    return layer


def _widen_activation(
    network: LayeredNetwork, block: Block, step: Step, layer: Convolution, x: Range
) -> None:
    node, unchanged = step.activation, None if step.activation is None else unchanged_by(step.activation)
    assert node is not None
    assert unchanged is not None
    if inside(x, unchanged):
        resized(node, layer.out_channels)
        return
    slopes = torch.zeros(layer.out_channels)
    slopes[-block.channels :] = 1
    prelu = nn.PReLU(layer.out_channels, device="meta")
    prelu.weight = nn.Parameter(slopes.to(layer.weight), requires_grad=False)
    wanted = layer_of(node)
    free = wanted and wanted not in dict(network.named_modules())
    name = free_name(network, wanted if free else f"{step.layer.target}_activation")
    network.add_submodule(name, prelu.train(layer.training))
    with network.graph.inserting_before(node):
        made = network.graph.call_module(name, (source_of(node),))
    made.meta["val"] = step.layer.meta["val"]
    node.replace_all_uses_with(made)


ENTRY = DenseShortcut()
