"""Residual branches: what an addition adds, and what leaves with it if it adds nothing any more.

A branch is one operand of an addition together with everything that is computed for it alone. Where channels
live inside it only, a plan may keep none of them: the branch is gone then, and the sum is its other operand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import fx

from billhook.graph.capture import Program, layer_of
from billhook.graph.groups import ChannelGroup
from billhook.graph.memory import Memory
from billhook.graph.partition import Partition
from billhook.graph.plan import Keep
from billhook.graph.rules import Flow
from billhook.graph.rules._base import bind, is_tensor, shape_of


@dataclass(frozen=True, eq=False)
class Branch:
    """One operand of an addition that may vanish.

    Attributes:
        id: Name of the module that holds the addition; where that is the whole network or holds several,
            name of the last layer of the branch.
        add: The addition.
        value: The operand that the branch computes; nothing else reads it.
        other: The operand that is left when the branch is gone.
        nodes: Operators and tensors that serve the branch alone.
        tensors: Parameters and buffers that serve it alone.
        groups: Prunable groups whose channels live inside it, those of branches within it too.
        own: Those of them which no branch within it holds; if one of them is empty, the branch is gone.
    """

    id: str
    add: fx.Node = field(repr=False)
    value: fx.Node = field(repr=False)
    other: fx.Node = field(repr=False)
    nodes: frozenset[fx.Node] = field(repr=False)
    tensors: frozenset[str] = field(repr=False)
    groups: tuple[str, ...]
    own: tuple[str, ...]


def find_branches(flow: Flow, partition: Partition) -> tuple[Branch, ...]:
    """Return all branches that may vanish, in the order of their additions; any set of them may go at once.

    Of two operands that could both vanish, only the one that less is computed for may.
    """
    program = flow.program
    memory = Memory(program.graph)
    readers = _readers(program, memory)
    fed = _fed(program)
    found: list[Branch] = []
    for node in program.graph.nodes:
        operands = [o for o in summands(node) if o in fed]
        if len(operands) < 2:
            continue
        candidates = []
        for value, other in (operands[::-1], operands):
            if readers[value] != {node} or other.meta["val"].dtype != node.meta["val"].dtype:
                continue
            nodes = _region(program, readers, value)
            tensors = _tensors(program, nodes)
            nodes |= {n for n in program.graph.nodes if program.tensors.get(n.name) in tensors}
            groups = _groups_inside(flow, partition, value, tensors)
            if other not in nodes and groups:
                candidates.append(Branch("", node, value, other, nodes, tensors, groups, groups))
        if candidates:
            found.append(min(candidates, key=lambda b: len(b.nodes)))
    return _named(program, found)


def completed(
    branches: Iterable[Branch], keep: Mapping[str, Keep], sizes: Mapping[str, int]
) -> dict[str, Keep]:
    """Return `keep` with nothing kept of any group of a branch that is gone."""
    result = dict(keep)
    for branch in gone(branches, keep):
        result |= {g: np.zeros(sizes[g], dtype=bool) for g in branch.groups}
    return result


def gone(branches: Iterable[Branch], keep: Mapping[str, Keep]) -> tuple[Branch, ...]:
    """Return the branches of which `keep` leaves nothing."""
    return tuple(b for b in branches if any(g in keep and not keep[g].any() for g in b.own))


def summands(node: fx.Node) -> Sequence[fx.Node]:
    """Return the two operands of an addition of tensors of equal shape, nothing for other operators."""
    if node.op != "call_function" or not is_tensor(node):
        return ()
    call = bind(node)
    if call.name != "add" or call.get("alpha") not in (None, 1) or not hasattr(node.target, "_schema"):
        return ()
    a, b = call.get("self"), call.get("other")
    tensors = all(isinstance(o, fx.Node) and is_tensor(o) for o in (a, b))
    return (a, b) if tensors and shape_of(a) == shape_of(b) else ()


def _fed(program: Program) -> set[fx.Node]:
    """Return what depends on the user's inputs."""
    result: set[fx.Node] = set()
    for node in program.graph.nodes:
        given = node.op == "placeholder" and node.name in program.inputs
        if given or any(o in result for o in node.all_input_nodes):
            result.add(node)
    return result


def _readers(program: Program, memory: Memory) -> dict[fx.Node, set[fx.Node]]:
    """Return what reads every value; what leads nowhere (an assertion on a shape) does not count.

    Who changes a tensor in place is read by all who read that tensor later.
    """
    result: dict[fx.Node, set[fx.Node]] = {}
    for node in reversed(program.graph.nodes):
        users = set(node.users)
        if memory.changes(node):
            users |= memory.later_users(node)
        result[node] = {u for u in users if u.op == "output" or result[u]}
    return result


def _region(program: Program, readers: Mapping[fx.Node, set[fx.Node]], value: fx.Node) -> frozenset[fx.Node]:
    """Return `value` and everything that only it is computed from."""
    inside: set[fx.Node] = set()
    for node in reversed(program.graph.nodes):
        given = node.op == "placeholder" and node.name in program.inputs
        if node is value or (not given and readers[node] and readers[node] <= inside):
            inside.add(node)
    # What leads nowhere goes with what it reads.
    for node in program.graph.nodes:
        if (
            node.op == "call_function"
            and not readers[node]
            and any(o in inside for o in node.all_input_nodes)
        ):
            inside.add(node)
    return frozenset(inside)


def _tensors(program: Program, nodes: Collection[fx.Node]) -> frozenset[str]:
    """Return the parameters and buffers that nothing outside reads.

    Counters of a layer, which are not read in eval mode, go with the layer.
    """
    used: dict[str, bool] = {}  # whether all who read the tensor are inside
    for node in program.graph.nodes:
        name = program.tensors.get(node.name) if node.op == "placeholder" else None
        if name is not None and node.users:
            used[name] = used.get(name, True) and node in nodes
    layers: dict[str, bool] = {}
    for name, inside in used.items():
        layer = name.rpartition(".")[0]
        layers[layer] = layers.get(layer, True) and inside
    counters = {
        n: n.rpartition(".")[0] for n in program.shapes if n not in used and n not in program.parameters
    }
    return frozenset(
        [n for n, inside in used.items() if inside]
        + [n for n, layer in counters.items() if layer and layers.get(layer, False)]
    )


def _groups_inside(
    flow: Flow, partition: Partition, value: fx.Node, tensors: Collection[str]
) -> tuple[str, ...]:
    """Return the prunable groups that own axes of `tensors` only and do not reach the addition."""
    reaching = {
        int(g)
        for labels in flow.dims(value)
        if labels is not None
        for g in np.unique(partition.group_of[labels])
    }
    return tuple(
        g.id
        for i, g in enumerate(partition.groups)
        if g.prunable
        and i not in reaching
        and all(m.tensor in tensors for m in g.members)
        and not copied(flow, g)
    )


def copied(flow: Flow, group: ChannelGroup) -> bool:
    """Return True if the units are copies of channels, so that nothing computes them."""
    made = [m.tensor for m in group.members if m.role == "out"]
    return any(t in flow.numbering for t in made) and not any(t in flow.program.parameters for t in made)


def left_with_nothing(
    flow: Flow, partition: Partition, branches: Iterable[Branch], keep: Mapping[str, Keep]
) -> Branch | None:
    """Return a branch that is gone while nothing is left of the shortcut's copies either, None if none is."""
    for branch in gone(branches, keep):
        if branch.other.op != "call_function" or bind(branch.other).name != "billhook::copy_channels":
            continue
        labels = flow.dims(bind(branch.other)["x"])[1]
        held = set() if labels is None else {int(g) for g in np.unique(partition.group_of[labels])}
        names = [partition.groups[g].id for g in held if g >= 0]
        if names and all(n in keep and not keep[n].any() for n in names):
            return branch
    return None


def may_be_empty(flow: Flow, group: ChannelGroup) -> bool:
    """Return True for copies that are only put in places and added to something: none of them need stay."""
    if not copied(flow, group) or any(m.tensor in flow.program.parameters for m in group.members):
        return False
    gates = {m.tensor for m in group.members if m.role == "in"}
    for node in flow.program.graph.nodes:
        if node.op != "call_function" or bind(node).name != "billhook::copy_channels":
            continue
        if flow.tensor_name(bind(node)["gate"]) in gates and not all(summands(u) for u in node.users):
            return False
    return bool(gates)


def _named(program: Program, found: Sequence[Branch]) -> tuple[Branch, ...]:
    """Return the branches that have groups of their own, with names."""
    within = {b: {g for inner in found if inner.nodes < b.nodes for g in inner.groups} for b in found}
    kept = [replace(b, own=tuple(g for g in b.groups if g not in within[b])) for b in found]
    kept = [b for b in kept if b.own]
    holders = [layer_of(b.add) for b in kept]
    names: list[str] = []
    for branch, holder in zip(kept, holders, strict=True):
        alone = bool(holder) and holders.count(holder) == 1
        name = holder if alone else _last_layer(program, branch.nodes) or branch.add.name
        unique, n = name, 2
        while unique in names:
            unique, n = f"{name}#{n}", n + 1
        names.append(unique)
    return tuple(replace(b, id=name) for b, name in zip(kept, names, strict=True))


def _last_layer(program: Program, nodes: Collection[fx.Node]) -> str:
    """Return the name of the last layer with tensors among `nodes`."""
    for node in reversed(program.graph.nodes):
        if node in nodes and node.op == "call_function":
            for operand in node.all_input_nodes:
                if operand in nodes and operand.name in program.tensors:
                    return program.tensors[operand.name].rpartition(".")[0]
    return ""
