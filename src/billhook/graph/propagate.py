"""Run the rules over a captured program: from operators to labels."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import fx

from billhook.graph.capture import Program
from billhook.graph.labels import FIXED, Dims, LabelStore
from billhook.graph.rules import RULES, Call, Flow
from billhook.graph.rules._base import Mixing, Result, bind, is_tensor, no_channels, several, shape_of
from billhook.graph.rules.elementwise import elementwise

_HORIZON = 40  # operators to look ahead when a split dimension must choose who carries the labels


def propagate(program: Program, mixing: Mixing = "freeze", *, tie_parts: bool = True) -> Flow:
    """Return the labels of every value of the program."""
    flow = Flow(program, mixing, tie_parts)
    nodes = list(program.graph.nodes)
    position = {n: i for i, n in enumerate(nodes)}
    flow.carrier = lambda call, targets: _carrier(program, nodes, position, call, targets)
    for node in nodes:
        if node.op == "placeholder":
            flow.values[node] = _placeholder(flow, node)
        elif node.op == "call_function":
            flow.values[node] = _apply_rule(flow, bind(node))
        elif node.op == "output":
            for value in node.all_input_nodes:
                for dims in _each(flow.values.get(value)):
                    for labels in dims:
                        flow.freeze(Call(node, "output", {}), labels, "model output")
    return flow


def _placeholder(flow: Flow, node: fx.Node) -> Dims:
    name = flow.program.tensors.get(node.name)
    if name is None:
        return no_channels(node)  # the user's input or a constant: no channels that could leave
    dims: Dims = []
    for axis, size in enumerate(flow.program.shapes[name]):
        if (name, axis) not in flow.axes:
            flow.axes[name, axis] = flow.store.fresh(size)
        dims.append(flow.axes[name, axis])
    return dims


def _apply_rule(flow: Flow, call: Call) -> Result:
    if call.node.target is operator.getitem:
        source, index = call.node.args
        parts = several(flow.values.get(source))  # type: ignore[arg-type]
        if parts and isinstance(index, int):
            return parts[index]
        return no_channels(call.node)
    rule = RULES.get(call.name)
    if rule is None and torch.Tag.pointwise in getattr(call.node.target, "tags", ()):
        rule = elementwise
    if rule is None:
        return _unknown(flow, call, f"no rule for operator {call.name}")
    result = rule(flow, call)
    if is_tensor(call.node) and [len(d) if d is not None else None for d in result] != [
        s if d is not None else None for s, d in zip(call.shape, result, strict=False)
    ]:
        return _unknown(flow, call, f"operator {call.name} used in a way its rule does not know")
    return result


def _unknown(flow: Flow, call: Call, text: str) -> Result:
    """Freeze everything that enters; what leaves carries no channels."""
    for operand in call.node.all_input_nodes:
        for dims in _each(flow.values.get(operand)):
            for labels in dims:
                flow.freeze(call, labels, text)
    return no_channels(call.node)


def _each(value: Result | None) -> list[Dims]:
    """Return the labels of every result of an operator."""
    return several(value) or ([value] if value else [])  # type: ignore[list-item]


def _carrier(
    program: Program,
    nodes: Sequence[fx.Node],
    position: dict[fx.Node, int],
    call: Call,
    targets: Sequence[int],
) -> int:
    """Choose which of the dimensions that one dimension was split into carries the labels.

    Heads do in attention: the dimension that arrives as a batch dimension of a matrix product. Otherwise
    the larger one (channels per group in a shuffle, channels in a space-to-depth), the last if equal.
    """
    shape = call.shape
    for target in targets:
        if _arrives_as_batch(program, nodes, position[call.node], target):
            return target
    return max(targets, key=lambda t: (shape[t], t))


def _arrives_as_batch(program: Program, nodes: Sequence[fx.Node], start: int, target: int) -> bool:
    """Follow one dimension on; return True if it becomes a batch dimension of a matrix product."""
    probe = Flow(program, "allow", store=LabelStore())
    node = nodes[start]
    labels = probe.store.fresh(shape_of(node)[target])
    probe.values[node] = [labels if i == target else None for i in range(len(shape_of(node)))]
    probe.carrier = lambda call, targets: max(targets, key=lambda t: (call.shape[t], t))
    for follower in nodes[start + 1 : start + 1 + _HORIZON * 3]:
        if follower.op != "call_function" or not any(
            _carried(probe.values.get(n)) for n in follower.all_input_nodes
        ):
            continue
        call = bind(follower)
        if call.name in ("matmul", "bmm", "baddbmm", "scaled_dot_product_attention"):
            carried = next(o for o in call.operands if _carried(probe.values.get(o)))
            dims = probe.dims(carried)
            return any(d is not None and (d != FIXED).any() for d in dims[:-2])
        if call.name == "einsum":
            return _einsum_batch(probe, call)
        probe.values[follower] = _apply_rule(probe, call)
    return False


def _carried(value: Result | None) -> bool:
    return any(labels is not None for dims in _each(value) for labels in dims)


def _einsum_batch(probe: Flow, call: Call) -> bool:
    left, _, right = str(call["equation"]).replace(" ", "").partition("->")
    for term, operand in zip(left.split(","), call["tensors"], strict=False):
        for letter, labels in zip(term, probe.dims(operand), strict=False):
            if labels is not None:
                return letter in right and left.count(letter) == len(left.split(","))
    return False
