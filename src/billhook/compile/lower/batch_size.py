"""Finds operators that compute with the number of samples, which a network for one sample does not know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from billhook.graph.capture import Program
from billhook.graph.rules._base import bind

WHY = "computes with the number of samples"


_WITH_NUMBERS = {
    *("add", "sub", "rsub", "mul", "div", "true_divide", "floor_divide", "pow", "remainder", "fmod"),
    *("full", "full_like", "new_full", "arange", "clamp", "clamp_min", "clamp_max"),
}


def may_depend(program: Program) -> bool:
    """Return whether any operator computes with a number that is not part of the weights or of a layer."""
    nodes = [n for n in program.graph.nodes if n.op == "call_function" and _name(n) in _WITH_NUMBERS]
    return any(isinstance(a, (int, float)) and a not in (0, 1) for n in nodes for a in n.args)


def batch_dependent(program: Program, other: Program) -> Iterator[tuple[fx.Node, str]]:
    """Yield operators of `program` that differ in `other`, captured with another number of samples.

    Shapes may differ: whether samples stay apart in them is seen when they are lowered. Numbers may not.

    Yields:
        Node and name of each; the last one where the programs go different ways.
    """
    ours, theirs = ([n for n in p.graph.nodes if n.op == "call_function"] for p in (program, other))
    for a, b in zip(ours, theirs, strict=False):
        if a.target is not b.target:
            yield a, _name(a)
            return
        if any(_differ(a, x, y) for x, y in zip(_arguments(a), _arguments(b), strict=True)):
            yield a, _name(a)
    if len(ours) != len(theirs):
        longer = (ours if len(ours) > len(theirs) else theirs)[min(len(ours), len(theirs))]
        yield longer, _name(longer)


def _arguments(node: fx.Node) -> list[Any]:
    return [*node.args, *(node.kwargs[name] for name in sorted(node.kwargs))]


def _differ(node: fx.Node, x: Any, y: Any) -> bool:
    """Return whether a number is not the same in both; those of shapes do not count, nor x[:samples]."""
    if isinstance(x, (list, tuple)) and isinstance(y, (list, tuple)) and len(x) == len(y):
        leaves = [n for n in pytree.tree_leaves(x) if not isinstance(n, fx.Node)]
        return any(isinstance(n, float) for n in leaves) and leaves != [
            n for n in pytree.tree_leaves(y) if not isinstance(n, fx.Node)
        ]
    if isinstance(x, fx.Node) or isinstance(y, fx.Node):
        return isinstance(x, fx.Node) is not isinstance(y, fx.Node)
    samples = _name(node) in ("slice", "narrow") and len(node.args) > 1 and node.args[1] == 0
    return not samples and type(x) is type(y) and isinstance(x, (int, float)) and x != y


def _name(node: fx.Node) -> str:
    if isinstance(node.target, torch._ops.OpOverload):
        return bind(node).name
    return getattr(node.target, "__name__", str(node.target))
