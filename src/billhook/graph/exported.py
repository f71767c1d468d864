"""`ExportedNetwork`: the captured graph as a module, with sizes of the smaller network written in.

The fallback for networks whose forward holds sizes that cannot be changed from outside, and the reference
against which the smaller copy of the user's own module is checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from billhook.errors import ApplyError
from billhook.graph.capture import Program
from billhook.graph.constants import Kept, arguments, in_graph, rewrite
from billhook.graph.layers import put
from billhook.graph.rules._base import bind
from billhook.graph.section import Section
from billhook.graph.without import Without

TRAINING_FLAGS = {
    "batch_norm": "training",
    "dropout": "train",
    "feature_dropout": "train",
    "alpha_dropout": "train",
    "feature_alpha_dropout": "train",
}


class ExportedNetwork(nn.Module):
    """A network run from its captured graph; parameters keep their names.

    Batch norm and dropout follow `training`; other behaviour is that of eval mode at capture.
    """

    def __init__(
        self,
        program: Program,
        tensors: Mapping[str, Tensor],
        kept: Kept | None = None,
        section: Section | None = None,
    ) -> None:
        super().__init__()
        prefix = "" if section is None else f"{section.name}."
        for name, tensor in tensors.items():
            if name.startswith(prefix):
                parameter = name in program.parameters and not isinstance(tensor, nn.Parameter)
                put(self, name.removeprefix(prefix), nn.Parameter(tensor) if parameter else tensor)
        graph, constants = _rewritten(program, kept, section)
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)
        sources = [n.meta.get("source", n.name) for n in graph.nodes if n.op == "placeholder"]
        self._sources = [program.tensors.get(s, s).removeprefix(prefix) for s in sources]
        self._inputs = frozenset(program.inputs if section is None else [section.source.name])
        self._in_spec, self._out_spec = program.in_spec, program.out_spec
        self._inference = fx.GraphModule({}, graph)
        self._training = fx.GraphModule({}, _with_training_flags(graph))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph on inputs structured like the example inputs."""
        flat, spec = pytree.tree_flatten((args, kwargs))
        if spec != self._in_spec:
            raise ApplyError(f"the exported network takes inputs structured like {self._in_spec}, got {spec}")
        outputs = self._run(flat)
        return pytree.tree_unflatten(outputs[len(outputs) - self._out_spec.num_leaves :], self._out_spec)

    def _run(self, inputs: Sequence[Any]) -> list[Any]:
        given = iter(inputs)
        values = [next(given) if s in self._inputs else _lookup(self, s) for s in self._sources]
        body = self._training if self.training else self._inference
        return list(body(*values))


class ExportedSection(ExportedNetwork):
    """One module of a network run from its part of the graph: one tensor in, one tensor out."""

    def __init__(
        self, program: Program, tensors: Mapping[str, Tensor], kept: Kept | None, section: Section
    ) -> None:
        super().__init__(program, tensors, kept, section)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph on the only tensor among the arguments."""
        tensors = [v for v in pytree.tree_leaves((args, kwargs)) if isinstance(v, Tensor)]
        if len(tensors) != 1:
            raise ApplyError(f"this module takes one tensor, got {len(tensors)}")
        return self._run(tensors)[0]


def _lookup(root: nn.Module, name: str) -> Tensor:
    *path, leaf = name.split(".")
    for part in path:
        root = root._modules[part]  # type: ignore[assignment]
    found = root._parameters.get(leaf)
    return found if found is not None else root._buffers[leaf]  # type: ignore[return-value]


def _rewritten(
    program: Program, kept: Kept | None, section: Section | None
) -> tuple[fx.Graph, dict[str, Tensor]]:
    """Return a copy of the graph with the smaller network's sizes, and the constants it needs."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    waiting: list[tuple[fx.Node, Tensor]] = []
    run = frozenset(program.graph.nodes) if section is None else section.nodes
    without = Without(program.graph, kept.dropped if kept is not None else (), run)
    nodes = [n for n in program.graph.nodes if n in run and n not in without.nodes]
    names = {n.name for n in nodes}
    constants = {n.replace(".", "_"): t for n, t in program.constants.items() if n in names}
    if section is not None:
        nodes = _begin(graph, copies, nodes, section)
    for node in nodes:
        if node in without.left:
            copies[node] = without.sum(graph, node, copies)
            continue
        if node.op == "call_function":
            call = bind(node)
            changed = rewrite(call, kept, _scale_of(graph, copies)) if kept is not None else None
            if changed is not None:
                target, new = changed
                args, kwargs = map_arg(arguments(call, new, target), lambda n: copies.get(n, n))
                args, kwargs, held = _lift(graph, args, kwargs, constants)
                waiting += held
                copies[node] = graph.call_function(target, args, kwargs)
                continue
        copies[node] = graph.node_copy(node, lambda n: copies[n])
        if node in without.functional:
            copies[node].target = without.functional[node]
        if node.op == "placeholder":
            copies[node].meta["source"] = node.name  # the copy has another name if this is one of Python's
    if section is not None:
        graph.output((copies[section.result],))
    # Constants become inputs of the graph like parameters are, so that they move with the module.
    first = next(iter(graph.nodes))
    for stand_in, constant in waiting:
        name = f"picked_{len(constants)}"
        with graph.inserting_before(first):
            placeholder = graph.placeholder(name)
        constants[placeholder.name] = constant
        stand_in.replace_all_uses_with(placeholder)
        graph.erase_node(stand_in)
    return graph, constants


def _begin(
    graph: fx.Graph, copies: dict[fx.Node, fx.Node], nodes: Sequence[fx.Node], section: Section
) -> list[fx.Node]:
    """Start the graph of a section with what it takes; return those of its nodes that are operators."""
    copies[section.source] = graph.placeholder(section.source.name)
    copies[section.source].meta["source"] = section.source.name
    for node in nodes:
        if node.op == "placeholder":
            copies[node] = graph.node_copy(node)
            copies[node].meta["source"] = node.name
    for size, dim in section.sizes.items():
        copies[size] = graph.call_function(torch.ops.aten.sym_size.int, (copies[section.source], dim))
    return [n for n in nodes if n.op != "placeholder"]


def _scale_of(graph: fx.Graph, copies: Mapping[fx.Node, fx.Node]) -> Any:
    scale = in_graph(graph)
    return lambda size, kept, of: scale(copies.get(size, size), kept, of)


def _lift(
    graph: fx.Graph, args: Sequence[Any], kwargs: dict[str, Any], constants: Mapping[str, Tensor]
) -> Any:
    """Replace tensors among the arguments by stand-in nodes."""
    held: list[tuple[fx.Node, Tensor]] = []

    def lift(value: Any) -> Any:
        if isinstance(value, Tensor):
            node = graph.call_function(torch.clone, ())
            held.append((node, value))
            return node
        return value

    return tuple(lift(a) for a in args), {k: lift(v) for k, v in kwargs.items()}, held


def _with_training_flags(graph: fx.Graph) -> fx.Graph:
    """Return a copy in which batch norm with running statistics and dropout are in training mode."""
    copy = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        copies[node] = copy.node_copy(node, lambda n: copies[n])
        if node.op != "call_function" or not hasattr(node.target, "_schema"):
            continue
        call = bind(node)
        flag = TRAINING_FLAGS.get(call.name)
        if flag is not None and flag in call.args:
            args, kwargs = arguments(call, {flag: True}, node.target)
            copies[node].args, copies[node].kwargs = map_arg((args, kwargs), lambda n: copies[n])
    return copy
