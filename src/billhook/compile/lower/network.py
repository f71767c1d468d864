"""Lowering: a captured network becomes an `ir.Network` that computes one sample.

The graph of ATen operators is read once, in order. A tensor is a view of planes (`base.View`), so what only
moves planes makes no operator; the tables of operators are in `layers`, `arithmetic`, `activations`,
`reductions`, `spatial` and `views`. What reads constants only is computed here.
"""

from __future__ import annotations

import operator as python
from collections.abc import Mapping
from math import prod
from types import UnionType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from billhook.compile.format import MAX_RANK
from billhook.compile.ir import Network, Port

# Importing a table fills it.
from billhook.compile.lower import activations as activations
from billhook.compile.lower import joins as joins
from billhook.compile.lower import layers as layers
from billhook.compile.lower import norms as norms
from billhook.compile.lower import reductions as reductions
from billhook.compile.lower import spatial as spatial
from billhook.compile.lower import views as views
from billhook.compile.lower.base import OPERATORS, Builder, Refusal, fixed_shape
from billhook.compile.lower.batch_size import WHY, batch_dependent, may_depend
from billhook.compile.lower.batched import Batched, lower_batched
from billhook.compile.lower.turned import Turned
from billhook.compile.lower.unsupported import Unsupported
from billhook.compile.lower.view import View
from billhook.compile.passes.drop_unused import drop_unused
from billhook.errors import CaptureError
from billhook.graph.capture import Program, capture_program
from billhook.graph.functional import without_in_place
from billhook.graph.inputs import Call, ExampleInputs, as_call, repeat_batch
from billhook.graph.memory import Memory
from billhook.graph.outputs import output_name
from billhook.graph.rules._base import bind

_CHECKS = ("_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range")


class _Unknown:
    """What an operator makes that could not be lowered; its readers cannot be lowered either."""


_UNKNOWN = _Unknown()


def lower(model: nn.Module, example_inputs: ExampleInputs) -> Network:
    """Return what `model` computes of one sample, as operators of the engine.

    The model is captured in eval mode and left as it is; weights are copied. The first dimension of inputs,
    of outputs and of all between them is the batch, which is dropped.

    Args:
        model: Any network that can be captured.
        example_inputs: A tensor, a tuple of arguments or a dict of keyword arguments; float tensors.
    Raises:
        CaptureError: if the network cannot be captured.
        UnsupportedError: for operators that the engine lacks, all at once.
    """
    program, dependent = _captured(model, as_call(example_inputs))
    graph = without_in_place(program.graph)
    inputs = [n for n in graph.nodes if n.op == "placeholder" and _name(n) in program.inputs]
    batches = [int(n.meta["val"].shape[0]) for n in inputs if _is_sample(n)]
    build, unsupported = Builder(batches[0] if batches else 1), Unsupported()
    constants = _constants(model, program)
    ports: list[Port] = []
    for node in graph.nodes:
        if node.op == "placeholder":
            build.results[node] = _placeholder(build, node, constants, ports, unsupported)
        elif node.op == "output":
            outputs = _outputs(build, node, program.out_spec, unsupported)
        else:
            build.results[node] = _lowered(build, node, unsupported)
    for node, name in dependent:
        unsupported.add(node, name, WHY)
    unsupported.check()
    return drop_unused(Network(tuple(build.ops), tuple(ports), outputs))


def _captured(model: nn.Module, call: Call) -> tuple[Program, list[tuple[fx.Node, str]]]:
    """Return the network captured with two samples, and what it computes differently for three.

    With two, none of its ones is the batch by chance.
    """
    one = pytree.tree_map_only(Tensor, lambda t: t[:1] if t.dim() else t, call)
    try:
        program = capture_program(model, repeat_batch(one, 2))
        if not may_depend(program):
            return program, []
        return program, list(batch_dependent(program, capture_program(model, repeat_batch(one, 3))))
    except CaptureError:  # its code may hold the size of the batch
        return capture_program(model, call), []


def _name(node: fx.Node) -> str:
    """Return the name of a placeholder as the exporter gave it."""
    return str(node.meta.get("source", node.name))


def _is_sample(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dim() > 0


def _constants(model: nn.Module, program: Program) -> dict[str, Tensor]:
    state: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    state |= dict(model.named_buffers(remove_duplicate=False))
    found = {placeholder: state[name] for placeholder, name in program.tensors.items()}
    return {name: t.detach().cpu() for name, t in {**program.constants, **found}.items()}


def _placeholder(
    build: Builder,
    node: fx.Node,
    constants: Mapping[str, Tensor],
    ports: list[Port],
    unsupported: Unsupported,
) -> Any:
    name = _name(node)
    if name in constants:
        return constants[name]
    if not isinstance(node.meta.get("val"), Tensor):
        return node.meta.get("val")
    kind, sizes = node.meta["val"].dtype, tuple(int(s) for s in node.meta["val"].shape)
    if not sizes or sizes[0] != build.batch or 0 in sizes:
        unsupported.add(node, "input", f"has the shape {list(sizes)}, without the batch in front")
    elif len(sizes) - 1 > MAX_RANK:
        unsupported.add(node, "input", f"has {len(sizes)} dimensions")
    elif kind != torch.float32:
        unsupported.add(node, "input", f"has numbers of type {str(kind).removeprefix('torch.')}")
    else:
        # The last two dimensions lie in a plane; a sequence is one row, a vector has a plane per number.
        shape = sizes[1:]
        inside = 2 if len(shape) >= 3 else max(0, len(shape) - 1)
        lead = len(shape) - inside
        height, width = (1, 1, *shape[lead:])[-2:]
        value = build.value(name, prod(shape[:lead]), height, width)
        ports.append(Port(name, value, shape))
        return build.view(value, shape)
    return _UNKNOWN


def _lowered(build: Builder, node: fx.Node, unsupported: Unsupported) -> Any:
    """Return what a node makes; remember the operator if the engine lacks it."""
    known = [build.results[n] for n in node.all_input_nodes]
    unknown = any(_holds(k, _Unknown) for k in known)
    if node.target is python.getitem:
        return _UNKNOWN if unknown else _item(build, node, unsupported)
    call = bind(node)
    if call.name in _CHECKS:
        return None
    try:
        if Memory.changes(node):
            raise Refusal("changes a tensor in place that is read by another view later")
        if not unknown and not any(_holds(k, View | Turned | Batched) for k in known):
            return _computed(build, node)
        if call.name not in OPERATORS:
            raise Refusal("")
        if unknown:
            return _UNKNOWN
        batched = any(_holds(k, Batched) for k in known)
        made = lower_batched(build, call) if batched else OPERATORS[call.name](build, call)
        _check(build, node, made)
        return made
    except Refusal as refusal:
        moved = next((k for k in known if isinstance(k, Batched)), None)
        if moved is not None:
            unsupported.add(moved.node, bind(moved.node).name, "moves the batch")
        if moved is None or call.name not in OPERATORS:
            unsupported.add(node, call.name, str(refusal))
        return _UNKNOWN


def _item(build: Builder, node: fx.Node, unsupported: Unsupported) -> Any:
    """Return one of the results of an operator with several."""
    source = node.all_input_nodes[0]
    found = build.results[source][node.args[1]]
    if found is None:
        unsupported.add(source, bind(source).name, "has another result than its first that is read")
        return _UNKNOWN
    return found


def _holds(result: Any, kind: type | UnionType) -> bool:
    return isinstance(result, kind) or (isinstance(result, list) and any(isinstance(r, kind) for r in result))


def _computed(build: Builder, node: fx.Node) -> Any:
    """Return the result of an operator that reads constants only."""
    tags = getattr(node.target, "tags", ())
    if torch.Tag.nondeterministic_seeded in tags or not callable(node.target):
        raise Refusal("makes random numbers")
    args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), lambda n: build.results[n])
    with torch.no_grad():
        made = node.target(*args, **kwargs)
    return list(made) if isinstance(made, tuple) else made


def _check(build: Builder, node: fx.Node, made: Any) -> None:
    """Refuse what has another shape than the captured tensor: samples were mixed."""
    value = node.meta["val"]
    several = isinstance(value, (tuple, list))
    for tensor, view in zip(value if several else [value], made if several else [made], strict=True):
        if isinstance(view, View | Turned) and (build.batch, *view.shape) != fixed_shape(tensor):
            raise Refusal("mixes samples")
        if isinstance(view, Batched) and view.shape(build.batch) != fixed_shape(tensor):
            raise Refusal("mixes samples")


def _outputs(build: Builder, node: fx.Node, spec: Any, unsupported: Unsupported) -> tuple[Port, ...]:
    leaves = list(pytree.tree_leaves(node.args[0], is_leaf=lambda n: n is None))
    ports: list[Port] = []
    for name, leaf in zip(_output_names(spec, len(leaves)), leaves, strict=True):
        result = build.results[leaf] if isinstance(leaf, fx.Node) else leaf
        result = build.plain(result, "output") if isinstance(result, Turned) else result
        if isinstance(result, Batched):
            unsupported.add(result.node, bind(result.node).name, "moves the batch")
        if isinstance(result, View) and (why := _no_output(leaf, result)):
            unsupported.add(node, "output", why if name == "output" else f"{name!r} {why}")
        elif isinstance(result, View):
            while name in {p.name for p in ports}:
                name += "_"
            ports.append(Port(name, build.read(result, "output"), result.shape))
        elif isinstance(result, Tensor):
            unsupported.add(node, "output", f"{name} is a constant")
    if not ports:
        unsupported.check()
        unsupported.add(node, "output", "holds no tensor")
    return tuple(ports)


def _no_output(leaf: Any, result: View) -> str:
    """Return why a result cannot be given to the user; empty if it can."""
    kind = leaf.meta["val"].dtype if isinstance(leaf, fx.Node) else torch.float32
    if kind != torch.float32:
        return f"has numbers of type {str(kind).removeprefix('torch.')}"
    return f"has {len(result.shape) + 1} dimensions" if len(result.shape) > MAX_RANK else ""


def _output_names(spec: Any, count: int) -> list[str]:
    """Return names of the results, whatever they are."""
    paths, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(list(range(count)), spec))
    return [output_name(path) for path, _ in paths]
