"""In-place operators of a captured graph, replaced by their twins that make a new tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from billhook.graph.memory import Memory


def without_in_place(graph: fx.Graph) -> fx.Graph:
    """Return a copy in which operators change nothing in place, as far as that is certain to be the same.

    Who reads the changed tensor later, reads the new one. An operator stays where views of the tensor are
    read later, or where it has no such twin.
    """
    copy = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    memory = Memory(graph)
    for node in graph.nodes:
        copies[node] = copy.node_copy(node, lambda n: copies[n])
        if node.op == "placeholder":
            copies[node].meta["source"] = node.name  # the copy has another name if this is one of Python's
        if not memory.changes(node) or not isinstance(node.args[0], fx.Node):
            continue
        changed, other = node.args[0], twin(node)
        direct = memory.later_users(node) <= set(changed.users)
        if other is not None and direct and changed.op == "call_function":
            copies[node].target = other
            copies[changed] = copies[node]
    return copy


def twin(node: fx.Node) -> Any:
    """Return the operator that makes a new tensor of what `node` changes in place, None if there is none."""
    target: Any = node.target
    name, overload = target._schema.name.removeprefix("aten::").removesuffix("_"), target._overloadname
    return getattr(getattr(torch.ops.aten, name, None), overload, None)
