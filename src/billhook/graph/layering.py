"""From captured operators to plain layers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo
from torch.fx.node import map_arg

from billhook.graph.capture import Program
from billhook.graph.constants import arguments
from billhook.graph.exported import TRAINING_FLAGS, ExportedNetwork
from billhook.graph.functional import without_in_place
from billhook.graph.layers import OWN_LAYERS, LayeredNetwork, put, take_after
from billhook.graph.plain_layers import (
    CONVOLUTIONS,
    DROPOUTS,
    FEATURE_DROPOUTS,
    NORMS,
    batch_norm,
    convolution,
    linear,
)
from billhook.graph.rules._base import Call, bind, shape_of


class _Signature(_PyTreeCodeGen):
    """How forward takes its arguments and what it returns; never changes, so copies share it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Signature:
        return self


def layered(
    model: nn.Module,
    program: Program,
    *,
    fusions: Sequence[Mapping[str, Any]] = (),
    still: frozenset[str] = frozenset(),
) -> LayeredNetwork:
    """Return `model` as a graph of plain layers; weights are copies.

    Args:
        model: The network that was captured.
        program: What capture made of it; any batch size if it was captured so.
        fusions: What the network has been rewritten by already.
        still: Names of running means that do not move even in training, because the user has frozen them.
    """
    exported = isinstance(model, ExportedNetwork)
    tensors = {
        name: nn.Parameter(t.detach().clone(), t.requires_grad) if isinstance(t, nn.Parameter) else t.clone()
        for name, t in [*model.named_parameters(), *model.named_buffers()]
        if name in program.shapes
    }
    names = () if exported else tuple(inspect.signature(model.forward).parameters)
    made = _Layers(program, tensors, still).network(_argument_names(program, names))
    made.meta["fusions"] = tuple(fusions)
    take_after(made, model)
    return made


@dataclass
class _Layers:
    """Puts layers in the place of operators.

    Attributes:
        program: The captured network.
        tensors: Its parameters and buffers by name.
        still: Names of running means that do not move in training.
        root: Holds the layers that were made.
        uses: What reads each tensor, and how.
        constants: Names of buffers that hold constants.
    """

    program: Program
    tensors: Mapping[str, Tensor]
    still: frozenset[str] = frozenset()
    root: nn.Module = field(default_factory=nn.Module)
    uses: dict[str, set[str]] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)

    def network(self, argument_names: Sequence[str]) -> LayeredNetwork:
        """Return the whole network."""
        source = without_in_place(self.program.graph)
        for node in source.nodes:
            name = self._tensor(node)
            for user in node.users if name is not None else ():
                self.uses.setdefault(name or "", set()).add(self._use(user))
        graph = fx.Graph()
        graph.set_codegen(
            _Signature(_PyTreeInfo(list(argument_names), self.program.in_spec, self.program.out_spec))
        )
        copies: dict[fx.Node, fx.Node] = {}
        for node in source.nodes:
            if self._tensor(node) is not None or _name_of(node) in self.program.constants:
                continue  # fetched where it is read
            if node.op == "call_function":
                self._read(graph, copies, node)
            if node.op == "output":
                returned: Any = node.args[0]
                outputs = [copies[n] if isinstance(n, fx.Node) else n for n in returned]
                graph.output(tuple(outputs[len(outputs) - self.program.out_spec.num_leaves :]))
            elif node not in copies:
                copies[node] = graph.node_copy(node, lambda n: copies[n])
        self._keep_counters()
        made = LayeredNetwork(self.root, graph, LayeredNetwork.__name__)
        for name in self.constants:  # the graph module has made them a part of the state
            if name in made._buffers:
                made._non_persistent_buffers_set.add(name)
        return made

    def _read(self, graph: fx.Graph, copies: dict[fx.Node, fx.Node], node: fx.Node) -> None:
        """Put a layer in the place of an operator if it is one; else fetch the tensors it reads."""
        call = bind(node) if hasattr(node.target, "_schema") else None
        layer = self._layer(call) if call is not None else None
        if call is not None and layer is not None:
            name, module = layer
            if type(dict(self.root.named_modules()).get(name)) in (type(None), nn.Module):
                put(self.root, name, module)
            x = call.operands[0]
            copies[node] = graph.call_module(name, (copies[x],))
            # A graph that was run from a graph has lost its modules; capture believes what stands here.
            stack = {**(node.meta.get("nn_module_stack") or {})}
            kind = f"{type(module).__module__}.{type(module).__qualname__}"
            copies[node].meta = {**node.meta, "nn_module_stack": {**stack, name: (name, kind)}}
            return
        flag = TRAINING_FLAGS.get(call.name) if call is not None else None
        if call is not None and self._name(call.get("running_mean")) in self.still:
            flag = None
        for operand in node.all_input_nodes:
            if operand not in copies:
                copies[operand] = self._get(graph, operand)
        if call is not None and flag is not None and call[flag] is False:
            # An operator that behaves differently in training, but is no layer: it asks the network.
            asking = arguments(call, {flag: graph.get_attr("training")}, node.target)
            args, kwargs = map_arg(asking, lambda n: copies.get(n, n))
            copies[node] = graph.call_function(node.target, args, kwargs)  # type: ignore[arg-type]
            copies[node].meta = dict(node.meta)

    def _layer(self, call: Call) -> tuple[str, nn.Module] | None:
        """Return (name, layer) for an operator that is one, None for all others."""
        if call.name in DROPOUTS or call.name == "feature_dropout":
            return self._dropout(call)
        if call.name in OWN_LAYERS:
            return self._own(call)
        weight = self._name(call.get("weight"))
        make: Callable[[Call], nn.Module] | None = None
        leaves = {"weight": call.get("weight"), "bias": call.get("bias")}
        if call.name in CONVOLUTIONS and len(shape_of(call.operands[0])) == len(shape_of(call["weight"])):
            make = convolution
        elif call.name == "linear":
            make = linear
        elif (
            call.name == "batch_norm"
            and call["training"] is False
            and self._name(call["running_mean"]) not in self.still
            and len(shape_of(call.operands[0])) in NORMS
        ):
            leaves |= {"running_mean": call["running_mean"], "running_var": call["running_var"]}
            make = batch_norm
            weight = self._name(call["running_mean"])
        if make is None or weight is None:
            return None
        path = weight.rpartition(".")[0]
        if not path or any(
            n is not None and not self._owned(n, f"{path}.{leaf}") for leaf, n in leaves.items()
        ):
            return None
        if make is batch_norm and any(leaves[n] is None for n in ("running_mean", "running_var")):
            return None
        module = make(call)
        for leaf, node in leaves.items():
            if node is None:
                continue
            tensor = self.tensors[f"{path}.{leaf}"]
            if isinstance(tensor, nn.Parameter):
                module.register_parameter(leaf, tensor)
            else:
                module._parameters.pop(leaf, None)
                module.register_buffer(leaf, tensor)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.affine = leaves["weight"] is not None
        return path, module

    def _dropout(self, call: Call) -> tuple[str, nn.Module] | None:
        stack = list((call.node.meta.get("nn_module_stack") or {}).values())
        path, kind = (str(stack[-1][0]).split("@")[0], str(stack[-1][1])) if stack else ("", "")
        if not path or "Dropout" not in kind or call.get("train") is not False:
            return None
        make = DROPOUTS.get(call.name) or FEATURE_DROPOUTS.get(len(shape_of(call.operands[0])))
        return None if make is None else (path, make(float(call["p"])))

    def _own(self, call: Call) -> tuple[str, nn.Module] | None:
        leaves, make = OWN_LAYERS[call.name]
        given = {leaf: call.get(leaf) for leaf in leaves}
        path = (self._name(given[leaves[0]]) or "").rpartition(".")[0]
        if not path or any(
            n is not None and not self._owned(n, f"{path}.{leaf}") for leaf, n in given.items()
        ):
            return None
        return path, make(
            {leaf: None if n is None else self.tensors[f"{path}.{leaf}"] for leaf, n in given.items()}
        )

    def _owned(self, node: fx.Node, name: str) -> bool:
        """Return True if `node` is the tensor `name`, and all that read it are the same layer."""
        return self._name(node) == name and len(self.uses[name]) == 1

    def _use(self, node: fx.Node) -> str:
        """Return what an operator does with which tensors; the same for every call of one layer."""
        if node.op != "call_function" or not hasattr(node.target, "_schema"):
            return f"{node.op} {node.name}"
        values = {k: self._name(v) if isinstance(v, fx.Node) else v for k, v in bind(node).args.items()}
        return repr((str(node.target), values))

    def _name(self, node: Any) -> str | None:
        return self._tensor(node) if isinstance(node, fx.Node) else None

    def _tensor(self, node: fx.Node) -> str | None:
        return self.program.tensors.get(_name_of(node)) if node.op == "placeholder" else None

    def _get(self, graph: fx.Graph, node: fx.Node) -> fx.Node:
        """Fetch a parameter, buffer or constant from the network."""
        name = self._tensor(node)
        if name is None:
            name = node.name
            self.constants.add(name)
            put(self.root, name, self.program.constants[_name_of(node)], persistent=False)
        elif name not in dict(self.root.named_parameters()) | dict(self.root.named_buffers()):
            put(self.root, name, self.tensors[name])
        fetched = graph.get_attr(name)
        fetched.meta = dict(node.meta)
        return fetched

    def _keep_counters(self) -> None:
        """Give batch norms the counters they came with, or none."""
        for name, module in self.root.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.num_batches_tracked = self.tensors.get(f"{name}.num_batches_tracked")


def _name_of(node: fx.Node) -> str:
    """Return the name that the program knows an input by; a copy has another one if it is one of Python's."""
    return str(node.meta.get("source", node.name))


def _argument_names(program: Program, names: Sequence[str]) -> list[str]:
    """Return names for the arguments of forward: those of the user's forward as far as they are known."""
    positional, keywords = program.in_spec.children()
    given = [*names[: positional.num_children]]
    given += [f"input_{i}" for i in range(len(given), positional.num_children)]
    return given + list(keywords.context)
