"""Questions that passes ask about a graph of plain layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import fx, nn

from billhook.graph.branches import summands
from billhook.graph.capture import layer_of
from billhook.graph.layers import LayeredNetwork
from billhook.graph.rules._base import bind, shape_of

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS: dict[int, type[Convolution]] = {
    3: nn.Conv1d,
    4: nn.Conv2d,
    5: nn.Conv3d,
}  # by rank of the input
Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def name_of(node: fx.Node) -> str:
    """Return the base name of the operator that `node` calls ("relu"), "" if it calls none."""
    return bind(node).name if node.op == "call_function" else ""


def module_of(network: LayeredNetwork, node: Any) -> nn.Module | None:
    """Return the layer that `node` calls, None if it calls none."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    return network.get_submodule(str(node.target))


def convolution_of(network: LayeredNetwork, node: Any) -> Convolution | None:
    """Return the convolution that `node` calls, None if it calls another layer or none."""
    layer = module_of(network, node)
    return layer if isinstance(layer, Convolution) else None


def norm_of(network: LayeredNetwork, node: Any) -> Norm | None:
    """Return the batch norm that `node` calls, None if it calls another layer or none."""
    layer = module_of(network, node)
    return layer if isinstance(layer, Norm) else None


def alone(network: LayeredNetwork, node: fx.Node) -> bool:
    """Return True if the layer that `node` calls is called nowhere else, so that its weights may change."""
    return sum(bool(n.op == "call_module" and n.target == node.target) for n in network.graph.nodes) == 1


def source_of(node: fx.Node) -> fx.Node:
    """Return the (first) value that an operator or layer reads."""
    return node.all_input_nodes[0]


def block_of(node: fx.Node) -> str:
    """Return the name of the block that holds an operator, or of the operator if it is the whole network."""
    return layer_of(node) or node.name


def free_name(network: LayeredNetwork, wanted: str) -> str:
    """Return `wanted`, with a number behind it if something has that name already."""
    taken = {n for n, _ in network.named_modules()} | set(network.state_dict())
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    return name


def before(node: fx.Node, origin: fx.Node) -> bool:
    """Return True if `node` is computed from `origin`."""
    seen: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        for operand in waiting.pop().all_input_nodes:
            if operand is origin:
                return True
            if operand not in seen and origin < operand:  # nothing earlier is computed from it
                seen.add(operand)
                waiting.append(operand)
    return False


def shaped_like(node: fx.Node, other: fx.Node) -> fx.Node:
    """Note that a new node's value has the shape of that of `other`, and return it."""
    node.meta["val"] = other.meta["val"]
    return node


def additions(network: LayeredNetwork) -> Iterator[tuple[fx.Node, fx.Node, fx.Node]]:
    """Yield (addition, operand, other operand) for sums of two values of equal shape."""
    for node in list(network.graph.nodes):
        found = summands(node)
        if found and len(shape_of(node)) > 2:
            yield node, *found
