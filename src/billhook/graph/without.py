"""A captured graph without some of its branches: which operators go, and what is left of the additions.

The sum becomes its other operand: the same tensor, not a copy. Where an operator changed the sum in place, it
would now change that operand for everybody else who reads it, so its twin that makes a new tensor is taken.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from billhook.graph.branches import Branch
from billhook.graph.functional import twin
from billhook.graph.memory import Memory


class Without:
    """What to do with the operators of a graph when branches are gone.

    Args:
        graph: The whole graph.
        dropped: Branches that are gone.
        within: The operators that are run from the graph; all others are beyond reach.
    Attributes:
        nodes: Operators and tensors that go.
        left: Addition → its operand that stays.
        functional: In-place operator → the operator to run instead.
    """

    def __init__(self, graph: fx.Graph, dropped: Sequence[Branch], within: Collection[fx.Node]) -> None:
        self.nodes: frozenset[fx.Node] = frozenset().union(*(b.nodes for b in dropped))
        self.left = {b.add: b.other for b in dropped}
        self.functional: dict[fx.Node, Any] = {}
        self._copied: set[fx.Node] = set()
        self._within = within
        memory = Memory(graph) if dropped else None
        for branch in dropped:
            assert memory is not None
            self._separate(memory, branch)

    def sum(self, graph: fx.Graph, add: fx.Node, copies: Mapping[fx.Node, fx.Node]) -> fx.Node:
        """Return what stands for the addition in `graph`."""
        left = copies[self.left[add]]
        return graph.call_function(torch.ops.aten.clone.default, (left,)) if add in self._copied else left

    def _separate(self, memory: Memory, branch: Branch) -> None:
        """See to it that nobody changes the operand that is left by way of the sum, or the reverse."""
        add, other = branch.add, branch.other
        if memory.changes(add) and add.args[0] is other:
            return  # `x += branch(x)`: one tensor before, one tensor now
        later = [n for n in memory.changed_after(add, add, other) if n not in self.nodes]
        if not later:
            return
        # The usual case: `relu_(sum)`, and whoever reads the sum reads what came out of that.
        first = later[0]
        alone = first.args[0] is add and set(add.users) == {first} and not memory.changed_after(add, other)
        fresh = twin(first)
        if alone and fresh is not None and first in self._within:
            self.functional[first] = fresh
        else:
            self._copied.add(add)
