"""A captured network as feature maps and what leads from one to the next: nodes and edges for `graphs`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import fx

from billhook.graph.graph import Graph
from billhook.graph.labels import Labels
from billhook.graph.rules._base import Call, bind, is_tensor, shape_of
from billhook.graph.weights import WeightLayer, weight_name

Kind = Literal["input", "filters", "joined", "map"]
KINDS: tuple[Kind, ...] = ("input", "filters", "joined", "map")
TYPES = ("concatenate", "identity", "resampled", "norm", "linear", "activation", "pool", "other")
"""Types of edges that are no layer's; "identity" and "resampled" are shortcuts without and with work."""

_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")
_VIEWS = (
    *(
        "dropout",
        "feature_dropout",
        "flatten",
        "view",
        "reshape",
        "permute",
        "transpose",
        "contiguous",
        "clone",
    ),
    *("unsqueeze", "squeeze", "expand", "alias", "getitem", "chunk", "split", "unflatten", "to", "detach"),
)
_RESAMPLING = ("slice", "pad", "constant_pad_nd", "select", "index_select", "index")


@dataclass
class FeatureMaps:
    """Nodes and edges in the order of the forward pass.

    Attributes:
        layers: Layers whose output channels are nodes, and labels of their outputs and inputs (or a fixed
            number of them).
        kinds: Of the nodes.
        layer_of: Index into `layers` of nodes that stand for a layer's filters, -1 for others.
        depths: Layers on the longest way to a node.
        edges: From and to which node, and the type: an index into `layers`, or -1 - an index into `TYPES`.
        made_by: Weight → the nodes that stand for what it makes.
    """

    layers: list[tuple[WeightLayer, Labels | int, Labels | int]] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    layer_of: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    edges: list[tuple[int, int, int]] = field(default_factory=list)
    made_by: dict[str, list[int]] = field(default_factory=dict)
    _before: list[int] = field(default_factory=list)  # of each node: bits of the nodes that lead to it

    def node(self, kind: Kind, sources: dict[int, int], layer: int = -1) -> int:
        """Add a node that is reached from `sources` (node → type of the edge) and return it."""
        at = len(self.kinds)
        self.kinds.append(kind)
        self.layer_of.append(layer)
        self.depths.append(max((self.depths[s] for s in sources), default=0) + (kind == "filters"))
        self._before.append(1 << at)
        for source, type_ in sources.items():
            self.edge(source, at, type_)
        return at

    def edge(self, source: int, target: int, type_: int) -> None:
        """Add an edge between two nodes."""
        self.edges.append((source, target, type_))
        self._before[target] |= self._before[source]

    def leads_to(self, source: int, target: int) -> bool:
        """Return True if there is a way from one node to the other."""
        return bool(self._before[target] >> source & 1)


def feature_maps(graph: Graph) -> FeatureMaps:
    """Return the feature maps of a network, and the operators between them, as nodes and edges.

    A convolution with n filters is n nodes behind its input (here one, for all n), joined in one more node.
    So is a linear layer of which outputs can leave; another one is one edge. Norms, activations, pools and
    other operators are one edge to a new node; views of a feature map are that feature map. A shortcut is an
    edge to the node that it is added to.

    References:
        Yu et al., AGMC, ICCV 2021, arXiv:2011.12641; Yu et al., GNN-RL, ICML 2022, arXiv:2102.03214.
    """
    return _Walk(graph).maps()


def type_of(name: str) -> int:
    """Return how `FeatureMaps.edges` writes a type."""
    return -1 - TYPES.index(name)


class _Walk:
    """One pass over the operators; knows the node of every value, and if it was cut or padded on the way."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.found = FeatureMaps()
        self.at: dict[fx.Node, int] = {}
        self.resampled: set[fx.Node] = set()
        self.layers = {layer.tensor: layer for layer in graph.weights}
        self.indices: dict[str, int] = {}

    def maps(self) -> FeatureMaps:
        program = self.graph.program
        for node in program.graph.nodes:
            if node.op == "placeholder" and node.name in program.inputs and is_tensor(node):
                self.at[node] = self.found.node("input", {})
            elif node.op == "call_function" and _has_tensors(node):
                operands = [n for n in dict.fromkeys(node.all_input_nodes) if n in self.at]
                if operands:
                    self.at[node] = self._place(bind(node), operands)
        return self.found

    def _place(self, call: Call, operands: list[fx.Node]) -> int:
        """Return the node of what an operator makes, a new one where it needs one."""
        first = self.at[operands[0]]
        tensor = weight_name(self.graph.program, call.node)
        if tensor is not None and tensor in self.layers:
            return self._layer(call, self.layers[tensor], operands[0])
        if len(operands) > 1:
            return self._joined(call, operands)
        if call.name in _VIEWS or call.name in _RESAMPLING:
            if call.name in _RESAMPLING or operands[0] in self.resampled:
                self.resampled.add(call.node)
            return first
        return self.found.node("map", {first: type_of(_type(call))})

    def _layer(self, call: Call, layer: WeightLayer, x: fx.Node) -> int:
        spatial = len(layer.kernel)
        outputs = self._channels(call.node, len(call.shape) - spatial - 1)
        made = self.found.made_by.setdefault(layer.tensor, [])
        if layer.kind == "linear" and not self._varies(outputs):
            made.append(self.found.node("map", {self.at[x]: type_of("linear")}))
            return made[-1]
        if layer.tensor not in self.indices:
            self.indices[layer.tensor] = len(self.found.layers)
            inputs = self._channels(x, len(shape_of(x)) - spatial - 1)
            self.found.layers.append((layer, outputs, inputs))
        index = self.indices[layer.tensor]
        made.append(self.found.node("filters", {self.at[x]: index}, index))
        return self.found.node("joined", {made[-1]: type_of("concatenate")})

    def _joined(self, call: Call, operands: list[fx.Node]) -> int:
        nodes = [self.at[n] for n in operands]
        if call.name == "add" and len(operands) == 2 and nodes[0] != nodes[1]:
            main, short = sorted(operands, key=lambda n: -self.found.depths[self.at[n]])
            target, source = self.at[main], self.at[short]
            plain = short not in self.resampled and self.found.leads_to(source, target)
            if len(main.users) > 1:  # others read what nothing was added to
                target = self.found.node("map", {target: type_of("other")})
            self.found.edge(source, target, type_of("identity" if plain else "resampled"))
            return target
        if call.name == "cat":
            return self.found.node("joined", dict.fromkeys(nodes, type_of("concatenate")))
        return self.found.node("map", dict.fromkeys(nodes, type_of("other")))

    def _channels(self, node: fx.Node, dim: int) -> Labels | int:
        labels = self.graph.flow.dims(node)[dim]
        return shape_of(node)[dim] if labels is None else labels

    def _varies(self, channels: Labels | int) -> bool:
        return not isinstance(channels, int) and bool(self.graph.partition.affine(channels)[1])


def _type(call: Call) -> str:
    if call.name in _NORMS:
        return "norm"
    if "pool" in call.name or call.name in ("mean", "amax"):
        return "pool"
    return "activation" if torch.Tag.pointwise in getattr(call.node.target, "tags", ()) else "other"


def _has_tensors(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return any(_tensors(value))


def _tensors(value: object) -> Iterator[bool]:
    for v in value if isinstance(value, (list, tuple)) else [value]:
        yield isinstance(v, torch.Tensor)
