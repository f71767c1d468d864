"""Undo what `torch.export` wraps: blocks under `torch.no_grad()` and under a disabled `torch.autocast`.

The exporter puts the body of such a block into a graph of its own. Both change nothing about the values that
an evaluation computes, so the body is put back in place, where labels can flow through it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx
from torch._ops import HigherOrderOperator

from billhook.errors import CaptureError

# Operator → position of the body among its arguments.
_WRAPPERS = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}
_AUTOCAST_ENABLED = 2


def inline_blocks(module: fx.GraphModule, where: Callable[[fx.Node], str]) -> None:
    """Replace every wrapped block in `module.graph` by its operators, in place.

    Args:
        module: What the exporter made.
        where: Tells the user's line of an operator, for errors.
    Raises:
        CaptureError: for blocks under a condition or in a loop, and for those under an enabled autocast,
            whose casts the graph does not show.
    """
    graph = module.graph
    for node in list(graph.nodes):
        name = getattr(node.target, "__name__", "") if node.op == "call_function" else ""
        if isinstance(node.target, HigherOrderOperator) and name not in _WRAPPERS:
            raise CaptureError(
                f"forward uses {name}, which runs a part of the network under a condition or in a loop"
                f"{_at(module, node, where)}"
                "\n  move it out of forward, or compress the part of the network without it"
            )
        if name not in _WRAPPERS:
            continue
        if name == "wrap_with_autocast" and node.args[_AUTOCAST_ENABLED]:
            raise CaptureError(
                "forward switches torch.autocast on for a part of the network, which cannot be captured"
                f"{_at(module, node, where)}"
                "\n  leave autocast to the code that calls the network"
            )
        _inline(module, node, _WRAPPERS[name], where)
    graph.lint()


def _at(module: fx.GraphModule, node: fx.Node, where: Callable[[fx.Node], str]) -> str:
    """Return the line of a block: its own, or that of an operator in it or before it, which are close."""
    bodies = [n for n in node.all_input_nodes if n.op == "get_attr"]
    inside = [n for b in bodies for n in module.get_submodule(str(b.target)).graph.nodes]  # type: ignore[union-attr]
    lines = (where(n) for n in [node, *inside, *reversed(node.all_input_nodes)])
    return next((f"\n  at {line}" for line in lines if line), "")


def _inline(module: fx.GraphModule, node: fx.Node, at: int, where: Callable[[fx.Node], str]) -> None:
    body_node: Any = node.args[at]
    body = module.get_submodule(str(body_node.target))
    assert isinstance(body, fx.GraphModule)
    inline_blocks(body, where)
    inputs = [n for n in body.graph.nodes if n.op == "placeholder"]
    values: dict[fx.Node, Any] = dict(zip(inputs, node.args[at + 1 :], strict=True))
    with module.graph.inserting_before(node):
        results: Any = module.graph.graph_copy(body.graph, values)
    for user in list(node.users):  # every result is taken out of a tuple
        user.replace_all_uses_with(results[user.args[1]])
        module.graph.erase_node(user)
    module.graph.erase_node(node)
    if not body_node.users:
        module.graph.erase_node(body_node)
