"""Sections: single modules of a captured network, which can be run from their part of the graph.

Where a branch is gone, the forward method that calls it cannot stay. Only the module that holds the addition
has to be replaced; the rest of the user's network remains what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx

from billhook.graph.branches import Branch
from billhook.graph.capture import Program, layer_of
from billhook.graph.constants import Kept
from billhook.graph.rules._base import is_tensor


@dataclass(frozen=True, eq=False)
class Section:
    """A module that is called once, takes one tensor and returns one.

    Attributes:
        name: Dotted name of the module.
        nodes: Its operators and the tensors they read.
        source: What it takes.
        result: What it returns.
        sizes: Sizes that are computed outside → the dimension of `source` that has the same.
    """

    name: str
    nodes: frozenset[fx.Node]
    source: fx.Node
    result: fx.Node
    sizes: Mapping[fx.Node, int]


def sections(program: Program, kept: Kept) -> tuple[Section, ...]:
    """Return the smallest modules that hold the branches which are gone, none if one has no such module."""
    found: dict[str, Section] = {}
    for branch in kept.dropped:
        section = _around(program, branch)
        if section is None:
            return ()
        found[section.name] = section
    inner = [n for n in found if any(n.startswith(f"{outer}.") for outer in found)]
    return tuple(s for name, s in found.items() if name not in inner)


def _around(program: Program, branch: Branch) -> Section | None:
    name = layer_of(branch.add)
    while name:
        section = _section(program, name)
        if section is not None and _holds(section, branch):
            return section
        name = name.rpartition(".")[0]
    return None


def _holds(section: Section, branch: Branch) -> bool:
    operators = {n for n in branch.nodes if n.op != "placeholder"}
    return operators <= section.nodes and all(t.startswith(f"{section.name}.") for t in branch.tensors)


def _section(program: Program, name: str) -> Section | None:
    """Return the module called `name` as a section, None if it is none."""
    inside: set[fx.Node] = set()
    for node in program.graph.nodes:
        paths = [str(path) for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
        if any(path.startswith(f"{name}@") for path in paths):
            return None  # called more than once
        if node.op == "call_function" and name in paths:
            inside.add(node)
    entering = {o for n in inside for o in n.all_input_nodes if o not in inside}
    tensors = {o for o in entering if o.name in program.tensors}
    if not all(program.tensors[o.name].startswith(f"{name}.") for o in tensors):
        return None
    constants = {o for o in entering if o.name in program.constants}
    sources = [o for o in entering - tensors - constants if is_tensor(o)]
    results = [n for n in inside if any(u not in inside for u in n.users)]
    if len(sources) != 1 or len(results) != 1 or not is_tensor(results[0]):
        return None
    sizes = {o: _same_size(o, sources[0]) for o in entering - tensors - constants - set(sources)}
    if any(dim is None for dim in sizes.values()):
        return None
    known = {o: dim for o, dim in sizes.items() if dim is not None}
    return Section(name, frozenset(inside | tensors | constants), sources[0], results[0], known)


def _same_size(size: fx.Node, source: fx.Node) -> int | None:
    """Return the dimension of `source` that always has this size, None if there is none."""
    value = size.meta.get("val")
    if not isinstance(value, torch.SymInt):
        return None
    for dim, length in enumerate(source.meta["val"].shape):
        if isinstance(length, torch.SymInt) and length.node.expr == value.node.expr:
            return dim
    return None
