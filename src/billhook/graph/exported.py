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
from billhook.graph.rules._base import bind

_TRAINING_FLAGS = {
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

    def __init__(self, program: Program, tensors: Mapping[str, Tensor], kept: Kept | None = None) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            _register(self, name, tensor, name in program.parameters)
        graph, constants = _rewritten(program, kept)
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)
        sources = [n.meta.get("source", n.name) for n in graph.nodes if n.op == "placeholder"]
        self._sources = [program.tensors.get(s, s) for s in sources]
        self._inputs = frozenset(program.inputs)
        self._in_spec, self._out_spec = program.in_spec, program.out_spec
        self._inference = fx.GraphModule({}, graph)
        self._training = fx.GraphModule({}, _with_training_flags(graph))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph on inputs structured like the example inputs."""
        flat, spec = pytree.tree_flatten((args, kwargs))
        if spec != self._in_spec:
            raise ApplyError(f"the exported network takes inputs structured like {self._in_spec}, got {spec}")
        given = iter(flat)
        values = [next(given) if s in self._inputs else _lookup(self, s) for s in self._sources]
        body = self._training if self.training else self._inference
        outputs = list(body(*values))
        return pytree.tree_unflatten(outputs[len(outputs) - self._out_spec.num_leaves :], self._out_spec)


def _register(root: nn.Module, name: str, tensor: Tensor, parameter: bool) -> None:
    *path, leaf = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        child = root._modules[part]
        assert child is not None
        root = child
    if parameter:
        root.register_parameter(leaf, tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor))
    else:
        root.register_buffer(leaf, tensor)


def _lookup(root: nn.Module, name: str) -> Tensor:
    *path, leaf = name.split(".")
    for part in path:
        root = root._modules[part]  # type: ignore[assignment]
    found = root._parameters.get(leaf)
    return found if found is not None else root._buffers[leaf]  # type: ignore[return-value]


def _rewritten(program: Program, kept: Kept | None) -> tuple[fx.Graph, dict[str, Tensor]]:
    """Return a copy of the graph with the smaller network's sizes, and the constants it needs."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    constants: dict[str, Tensor] = {n.replace(".", "_"): t for n, t in program.constants.items()}
    waiting: list[tuple[fx.Node, Tensor]] = []
    for node in program.graph.nodes:
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
        if node.op == "placeholder":
            copies[node].meta["source"] = node.name  # the copy has another name if this is one of Python's
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
        flag = _TRAINING_FLAGS.get(call.name)
        if flag is not None and flag in call.args:
            args, kwargs = arguments(call, {flag: True}, node.target)
            copies[node].args, copies[node].kwargs = map_arg((args, kwargs), lambda n: copies[n])
    return copy
