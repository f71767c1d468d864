"""Which memory every value of a captured graph lives in, how large it is, and how long it is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import fx

from billhook.graph.labels import Dims, Labels
from billhook.graph.rules import Flow
from billhook.graph.rules._base import bind, shape_of

_ALIASES = frozenset(
    [
        *(
            "view",
            "reshape",
            "flatten",
            "unflatten",
            "squeeze",
            "unsqueeze",
            "permute",
            "transpose",
            "t",
            "mT",
        ),
        *("expand", "expand_as", "select", "slice", "narrow", "split", "split_with_sizes", "chunk", "unbind"),
        *("alias", "detach", "dropout", "contiguous", "to", "view_as", "reshape_as", "swapaxes", "movedim"),
    ]
)


def bytes_of(flow: Flow, node: fx.Node) -> tuple[int, list[Labels]]:
    """Return the size of a value as (bytes of its plain dimensions, labels of the others)."""
    value, dims = node.meta["val"], flow.values.get(node)
    if isinstance(value, (list, tuple)):  # several results: count them as plain bytes
        parts = [v for v in value if isinstance(v, torch.Tensor)]
        return sum(v.element_size() * prod(int(s) for s in v.shape) for v in parts), []
    labels: Dims = list(dims) if dims else []  # type: ignore[arg-type]
    shape = shape_of(node)
    if len(labels) != len(shape):
        labels = [None] * len(shape)
    plain = prod(s for s, d in zip(shape, labels, strict=True) if d is None)
    return int(value.element_size()) * plain, [d for d in labels if d is not None]


def owners(flow: Flow, nodes: Sequence[fx.Node]) -> tuple[Mapping[fx.Node, fx.Node], Mapping[fx.Node, int]]:
    """Return the node that owns each activation's memory, and the last step at which that memory is read."""
    owner: dict[fx.Node, fx.Node] = {}
    last: dict[fx.Node, int] = {}
    for step, node in enumerate(nodes):
        for operand in node.all_input_nodes:
            if operand in owner:
                last[owner[operand]] = step
        if node.op == "placeholder" and node.name in flow.program.inputs:
            owner[node], last[node] = node, step
        elif node.op == "call_function" and _has_tensor(node):
            source = next((n for n in node.all_input_nodes if n in owner), None)
            alias = _in_place(node) or bind(node).name in _ALIASES or "getitem" in str(node.target)
            if alias and source is None:
                continue  # a part of a weight
            owner[node] = owner[source] if alias and source is not None else node
            last[owner[node]] = step
    return owner, last


def _has_tensor(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) or (
        isinstance(value, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in value)
    )


def _in_place(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.name.endswith("_") and not schema.name.endswith("__")
