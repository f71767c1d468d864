"""Which values of a captured graph share memory, and who changes it in place."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from billhook.graph.rules._base import bind

_SAME_IN_EVAL = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")


class Memory:
    """Aliases among the values of a graph."""

    def __init__(self, graph: fx.Graph) -> None:
        self._position = {node: i for i, node in enumerate(graph.nodes)}
        self._root: dict[fx.Node, fx.Node] = {}
        self._source = {node: _source(node) for node in graph.nodes}
        self._family: dict[fx.Node, list[fx.Node]] = {}
        self._changed = [n for n in graph.nodes if self.changes(n)]
        for node in graph.nodes:
            source = self._source[node]
            self._root[node] = root = self._root[source] if source is not None else node
            self._family.setdefault(root, []).append(node)

    @staticmethod
    def changes(node: fx.Node) -> bool:
        """Return True if the operator works in place."""
        schema = getattr(node.target, "_schema", None)
        return schema is not None and schema.name.endswith("_") and not schema.name.endswith("__")

    def later_users(self, node: fx.Node) -> set[fx.Node]:
        """Return what reads the memory of `node` after it, other than through its result."""
        family = (n for n in self._family[self._root[node]] if not self._derives(n, node))
        users = {u for n in family for u in n.users}
        return {u for u in users if self._position[u] > self._position[node]}

    def changed_after(self, node: fx.Node, *values: fx.Node) -> list[fx.Node]:
        """Return the operators after `node` that change the memory of any of `values` in place."""
        roots = {self._root[v] for v in values}
        return [
            n for n in self._changed if self._position[n] > self._position[node] and self._root[n] in roots
        ]

    def _derives(self, node: fx.Node | None, origin: fx.Node) -> bool:
        while node is not None and node is not origin:
            node = self._source[node]
        return node is origin


def _source(node: fx.Node) -> fx.Node | None:
    """Return the operand whose memory the result may be, None if the result is new."""
    if node.op != "call_function" or not node.all_input_nodes:
        return None
    target: Any = node.target
    schema = getattr(target, "_schema", None)
    if schema is None:
        return node.all_input_nodes[0] if target is operator.getitem else None
    call = bind(node)
    if call.name in _SAME_IN_EVAL:
        return call.operands[0] if call.operands else None
    if not any(r.alias_info is not None for r in schema.returns):
        return None
    shared = [a.name for a in schema.arguments if a.alias_info is not None]
    found = [call.args[name] for name in shared]
    return next((v for v in found if isinstance(v, fx.Node)), None)
