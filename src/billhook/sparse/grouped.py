"""Pivoted layers in their fast form: grouped layers, with the permutations folded into the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from torch import fx, nn

from billhook.errors import InputError
from billhook.graph.agreement import agree, flat_outputs
from billhook.graph.alive import enliven_
from billhook.graph.capture import eval_mode, layer_of
from billhook.graph.graph import Graph, capture
from billhook.graph.inputs import ExampleInputs
from billhook.graph.plan import Plan
from billhook.graph.rules._base import bind, shape_of
from billhook.graph.slicing import copy_around, named_tensors
from billhook.graph.structure import Structure, impose_, require_fit
from billhook.graph.weights import WeightLayer
from billhook.sparse._grouped_layers import CONVOLUTIONS, Arrangement, grouped
from billhook.sparse._permuting import Orders, PivotedLayer, Table, arrange, best_orders, moved
from billhook.sparse.patterns.block_diagonal import BlockDiagonal


@dataclass(frozen=True)
class FoldedLayer:
    """A layer that became a grouped one.

    Attributes:
        layer: Its name.
        blocks: Groups it has now; its multiply-adds are 1/blocks of what they were.
        before: Whether a gather stands in front of it.
        after: Whether a gather stands behind it.
        moved: Numbers that its gathers move in one forward pass of the example inputs.
    """

    layer: str
    blocks: int
    before: bool
    after: bool
    moved: int


@dataclass(frozen=True)
class Folded:
    """A network with grouped layers in place of pivoted ones.

    Attributes:
        network: It computes the same as the network that was folded.
        layers: Those that are grouped now, in the order of the forward pass.
        notes: One sentence for everything that could not be done: layers that stay dense under their mask,
            groups whose channels must keep their order.
    """

    network: nn.Module
    layers: tuple[FoldedLayer, ...]
    notes: tuple[str, ...]

    @property
    def moved(self) -> int:
        """Numbers that all gathers move in one forward pass of the example inputs."""
        return sum(x.moved for x in self.layers)


def fold_pivots(network: nn.Module, plan: Plan, example_inputs: ExampleInputs) -> Folded:
    """Return a copy of a sparse network in which layers with a `block_diagonal` pattern are grouped layers.

    Such a layer is a gather of its inputs, a grouped convolution or a batched matrix product, and a gather of
    its outputs. To reorder the channels of a whole group (see `ChannelGroup`) changes nothing outside, and
    where it makes inputs or outputs of a layer lie block by block, there is no gather. A group has one order;
    it gets the one that spares the largest tensors a gather. Channels that are frozen keep their order.

    Blocks of unequal size stay dense under their mask, and so does a layer that is no plain `nn.Conv` or
    `nn.Linear` called by its module; the notes name them. The result is compared with `network`, both with
    random weights, and what would make a difference is left as it is. Costs a capture and a few forward
    passes.

    Args:
        network: What `apply` made of the plan, fine-tuned or not; it is left as it is.
        plan: Whose patterns `network` has.
        example_inputs: One batch.
    Returns:
        The folded network, its layers and the notes. Layers keep their names; one that needs a gather becomes
        a sequence of "before", "layer" and "after".
    Raises:
        InputError: if the plan has no block-diagonal pattern, or a weight outside the blocks is not zero.
        PlanError: if the plan is for another network. CaptureError: if it cannot be captured.
        ApplyError: if it cannot be copied.
    References:
        Sredojevic et al., "Structured Deep Neural Network Pruning via Matrix Pivoting", 2017.
        arXiv:1712.01084.
    Reconstructed:
        Only the abstract could be read, which names "local and global network optimisations"; the grouped
        layer is our local one, the orders of groups our global one.
    """
    structures = _pivots(network, plan)
    graph = capture(network, example_inputs, mixing="allow")  # what mixes channels does not mind their order
    layers, notes = _layers(network, graph, structures)
    live = copy_around(network, {})
    tensors = dict(named_tensors(live))
    enliven_(tensors)
    impose_(tensors, structures)
    orders, pinned = _orders(live, graph, layers)
    table = Table(graph.groups)
    wished = {x.layer.layer: arrange(x, table, orders) for x in layers}
    plans = _accepted(live, graph, table, orders, wished)
    refused = [
        f"{name}.weight stays dense under its mask: forward does not take another module for {name!r}"
        for name in wished
        if name not in plans
    ]
    done = tuple(
        FoldedLayer(x.layer.layer, x.blocks, how.before, how.after, moved(x, how))
        for x in layers
        if (how := plans.get(x.layer.layer)) is not None
    )
    folded = _carried_out(copy_around(network, {}), table, orders, plans)
    return Folded(folded, done, (*notes, *pinned, *refused))


def _pivots(network: nn.Module, plan: Plan) -> dict[str, Structure]:
    """Return the block-diagonal structures of a plan, which the weights of the network have."""
    pivots = {n: s for n, s in plan.patterns.items() if isinstance(s.pattern, BlockDiagonal)}
    if not pivots:
        raise InputError("the plan has no tensor with the pattern 'block_diagonal': there is nothing to fold")
    tensors = dict(named_tensors(network))
    for name, structure in pivots.items():
        require_fit(name, tensors.get(name), structure)
        if bool(tensors[name].detach()[~structure.mask.to(tensors[name].device)].any()):
            raise InputError(
                f"{name!r} has weights outside the blocks of its pattern that are not zero; fold what "
                "billhook.apply returned, and keep the pattern while it is trained"
            )
    return pivots


def _layers(
    network: nn.Module, graph: Graph, structures: Mapping[str, Structure]
) -> tuple[list[PivotedLayer], list[str]]:
    """Return the layers that can become grouped ones, in order, and for all others why they cannot."""
    found: list[PivotedLayer] = []
    notes = [
        f"{name} stays dense under its mask: no convolution or linear layer reads it as it is"
        for name in structures
        if name not in {w.tensor for w in graph.weights}
    ]
    for weight in graph.weights:
        structure = structures.get(weight.tensor)
        if structure is None:
            continue
        calls = _readers(graph, weight.tensor)
        why = _refusal(network, graph, weight, structure, calls)
        if why is not None:
            notes.append(f"{weight.tensor} stays dense under its mask: {why}")
            continue
        rows, columns = (structure.parts[n].astype(np.int64) for n in ("row_block", "column_block"))
        reads = sum(prod(shape_of(bind(n).operands[0])) for n in calls)
        writes = sum(prod(shape_of(n)) for n in calls)
        found.append(PivotedLayer(weight, rows, columns, reads, writes))
    return found, notes


def _refusal(
    network: nn.Module, graph: Graph, weight: WeightLayer, structure: Structure, calls: Sequence[fx.Node]
) -> str | None:
    """Return why a layer cannot be replaced by a grouped one, None if it can."""
    name, dot, leaf = weight.tensor.rpartition(".")
    module = network.get_submodule(name)
    if not dot:
        return "it is the whole network"
    if leaf != "weight" or type(module) not in (*CONVOLUTIONS, nn.Linear):
        return f"{name!r} is a {type(module).__name__}, no plain convolution or linear layer"
    if module._forward_hooks or module._forward_pre_hooks:
        return f"{name!r} has hooks"
    own = [*calls, *(_readers(graph, f"{name}.bias") if module.bias is not None else ())]
    if any(layer_of(n) != name or n.op != "call_function" for n in own):
        return f"other modules than {name!r} read its tensors"
    if {weight.tensor, f"{name}.bias"} & set(graph.program.aliases.values()):
        return f"other modules than {name!r} share its tensors"
    if weight.groups > 1 or weight.transposed != structure.transposed:
        return f"the pattern does not fit the {weight.groups} groups of {name!r}"
    blocks = structure.pattern.layout(weight.view)["row_block"].levels
    for what, part in (("outputs", "row_block"), ("inputs", "column_block")):
        sizes = np.bincount(structure.parts[part].astype(np.int64), minlength=blocks)
        if (sizes != sizes[0]).any():
            return (
                f"its {sizes.sum()} {what} are in blocks of different sizes, {sizes.min()} to {sizes.max()}"
            )
    return None


def _readers(graph: Graph, tensor: str) -> list[fx.Node]:
    """Return all operators that read a named tensor."""
    program = graph.program
    holders = [n for n in program.graph.nodes if program.tensors.get(n.name) == tensor]
    return list(dict.fromkeys(user for holder in holders for user in holder.users))


def _orders(live: nn.Module, graph: Graph, layers: Sequence[PivotedLayer]) -> tuple[Orders, list[str]]:
    """Return orders of the groups' units under which the network, with random weights, computes the same.

    What can leave alone can nearly always change places, too; not so where a network slices its channels and
    does different things to the parts. Groups for which that is found keep their order.
    """
    groups = list(graph.groups.prunable)
    table = Table(graph.groups)
    notes: list[str] = []
    while True:
        orders = best_orders(layers, groups)
        if not orders or _same(live, _carried_out(copy_around(live, {}), table, orders, {}), graph):
            return orders, notes
        wrong = [g for g in orders if not _same(live, _reordered(live, table, g, orders), graph)]
        for name in wrong or orders:
            notes.append(f"the channels of {name!r} keep their order: the network depends on it")
        groups = [g for g in groups if g.id not in (wrong or orders)]


def _accepted(
    live: nn.Module, graph: Graph, table: Table, orders: Orders, plans: Mapping[str, Arrangement]
) -> Mapping[str, Arrangement]:
    """Return the layers with which the network, with random weights, still computes the same."""
    while plans and not _same(live, _carried_out(copy_around(live, {}), table, orders, plans), graph):
        alone = {n: _carried_out(copy_around(live, {}), table, orders, {n: p}) for n, p in plans.items()}
        right = {n: plans[n] for n, other in alone.items() if _same(live, other, graph)}
        plans = right if len(right) < len(plans) else {}
    return plans


def _reordered(live: nn.Module, table: Table, group: str, orders: Orders) -> nn.Module:
    return _carried_out(copy_around(live, {}), table, {group: orders[group]}, {})


def _carried_out(
    network: nn.Module, table: Table, orders: Orders, arrangements: Mapping[str, Arrangement]
) -> nn.Module:
    """Put groups into new orders and grouped layers into their places, in place; return the network."""
    table.permute_(dict(named_tensors(network)), orders)
    for name, arrangement in arrangements.items():
        module = network.get_submodule(name)
        layer = grouped(module, arrangement)
        if layer is not module:
            network.set_submodule(name, layer)
    return network


def _same(network: nn.Module, other: nn.Module, graph: Graph) -> bool:
    """Return whether two networks compute the same."""
    with eval_mode(network), eval_mode(other):
        expected = flat_outputs(network, graph.call)
        try:
            return agree(expected, flat_outputs(other, graph.call))
        except Exception:  # a forward that asks its layers for what grouped ones do not have
            return False
