"""`silence`: the whole network with removed channels made silent. The oracle for every plan.

The captured graph runs with the original weights; wherever an operator consumes channels (a convolution, a
linear layer, a sum, a matrix product), those that the plan removes read as zero. Operators that mix
channels (layer norm, when `mixing="allow"`) run on what is kept. Where the plan removes a whole branch, the
addition reads zeros in its place. Where the plan has a pattern for a tensor, what stays of it has that
pattern. No tensor is cut, so nothing here shares code with the cutting that it checks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from billhook.errors import InputError
from billhook.graph import inputs as example
from billhook.graph.constants import Mask, arguments, rewrite, symbolic
from billhook.graph.fusions import fused
from billhook.graph.graph import Graph, capture_call, graph_of, mixing_of
from billhook.graph.inputs import Call, ExampleInputs
from billhook.graph.plan import Plan
from billhook.graph.rules._base import bind
from billhook.graph.slicing import named_tensors
from billhook.graph.structure import require_fit

Observer = Callable[[fx.Node, Any], None]


class SilencedNetwork(nn.Module):
    """The original network, reading zeros where the plan removes channels; runs in eval mode only."""

    def __init__(self, graph: Graph, model: nn.Module, plan: Plan) -> None:
        super().__init__()
        self.model = model
        self._graph = graph
        self._kept = graph.kept(plan)
        self._patterns = plan.patterns
        self._zeros = {b.add: b.value for b in graph.dropped(plan)}
        # In the order of the program, which `fx.Node.users` need not follow.
        self._last_user = {operand: n for n in graph.program.graph.nodes for operand in n.all_input_nodes}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run on inputs of the same shapes as the example inputs."""
        return self.run((args, kwargs))

    def _imposed(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors with patterns, in full size."""
        found = {}
        for name, structure in self._patterns.items():
            if name not in tensors:
                require_fit(name, None, structure)
            whole = tensors[name].detach().clone()
            stays = [
                np.arange(length) if mask is None else np.flatnonzero(mask)
                for length, mask in zip(whole.shape, self._kept.tensor(name, whole.dim()), strict=True)
            ]
            at = tuple(torch.from_numpy(index).to(whole.device) for index in np.ix_(*stays))
            require_fit(name, whole[at], structure)
            whole[at] = structure.project(whole[at])
            found[name] = whole
        return found

    def run(self, call: Call, observe: Observer | None = None) -> Any:
        """Run, and show every value to `observe` (after silencing, before it is freed)."""
        program = self._graph.program
        flat, spec = pytree.tree_flatten(example.copied(call))
        if spec != program.in_spec:
            raise InputError(f"expected inputs structured like {program.in_spec}, got {spec}")
        # Copies of what forward may change in place.
        tensors = dict(named_tensors(self.model)) | {
            n: b.clone() for n, b in self.model.named_buffers(remove_duplicate=False)
        }
        tensors |= self._imposed(tensors)
        given = dict(zip(program.inputs, flat, strict=True))
        values: dict[fx.Node, Any] = {}
        for node in program.graph.nodes:
            if node.op == "placeholder":
                name = program.tensors.get(node.name)
                if name is not None:
                    values[node] = tensors[name].detach()
                else:
                    values[node] = given[node.name] if node.name in given else program.constants[node.name]
            elif node.op == "output":
                outputs = map_arg(node.args[0], lambda n: values[n])
                return pytree.tree_unflatten(list(outputs)[-program.out_spec.num_leaves :], program.out_spec)
            else:
                values[node] = self._run_node(node, values)
                if observe is not None:
                    observe(node, values[node])
            for operand in node.all_input_nodes:
                if self._last_user[operand] is node:
                    values.pop(operand, None)
        raise AssertionError("a graph ends with its output")

    def _run_node(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        flow = self._graph.flow
        if node in self._kept.nodes:  # nobody reads what comes out, and a mean of nothing is no number
            args, kwargs = map_arg((node.args, node.kwargs), lambda n: values[n])
            return node.target(*args, **kwargs)  # type: ignore[operator]
        if node in flow.mixers and any(
            m is not None for o in node.all_input_nodes for m in self._kept.dims(o)
        ):
            return self._run_on_kept(node, values)
        local = dict(values)
        if node in self._zeros:
            local[self._zeros[node]] = torch.zeros_like(local[self._zeros[node]])
        for silencer in flow.silencers.get(node, ()):
            removed = ~self._kept.labels(silencer.labels)
            if removed.any():
                index = torch.from_numpy(removed.nonzero()[0])
                operand = local[silencer.operand]
                local[silencer.operand] = operand.index_fill(silencer.dim, index.to(operand.device), 0)
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: local[n])
        assert callable(node.target)
        return node.target(*args, **kwargs)

    def _run_on_kept(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        """Run a mixing operator on the kept channels only; the others become zero."""
        call = bind(node)
        changed = rewrite(call, self._kept, symbolic)
        target, new = changed if changed is not None else (node.target, {})
        args, kwargs = arguments(call, new, target)
        cut = {
            n: _select(values[n], self._kept.dims(n)) if isinstance(values[n], Tensor) else values[n]
            for n in node.all_input_nodes
        }
        assert callable(target)
        result = target(*map_arg(args, lambda n: cut[n]), **map_arg(kwargs, lambda n: cut[n]))
        if isinstance(result, Tensor):
            return _scatter(result, self._kept.dims(node))
        return [_scatter(r, m) for r, m in zip(result, self._kept.parts(node), strict=True)]


def silence(model: nn.Module, plan: Plan, example_inputs: ExampleInputs) -> SilencedNetwork:
    """Return the original network with the channels that `plan` removes silenced.

    Also a way to ask "what if this group went?" without touching the model. The result computes what the
    smaller network must compute, in the original's shapes and with the original's weights.

    Raises:
        PlanError: if the plan was made for another network.
    """
    model = fused(model, plan)
    return SilencedNetwork(graph_for(model, plan, example.as_call(example_inputs)), model, plan)


def graph_for(model: nn.Module, plan: Plan, call: Call) -> Graph:
    """Return the plan's graph if it was captured with inputs of the same shapes, else a new one."""
    if plan.inputs == example.describe(call):
        return graph_of(model, plan)
    graph = capture_call(model, call, mixing_of(plan))
    graph.keep_list(plan)
    return graph


def _select(tensor: Tensor, masks: list[Mask | None]) -> Tensor:
    for dim, mask in enumerate(masks):
        if mask is not None:
            tensor = tensor.index_select(dim, torch.from_numpy(mask.nonzero()[0]).to(tensor.device))
    return tensor


def _scatter(tensor: Tensor, masks: list[Mask | None]) -> Tensor:
    for dim, mask in enumerate(masks):
        if mask is not None:
            shape = [*tensor.shape[:dim], len(mask), *tensor.shape[dim + 1 :]]
            index = torch.from_numpy(mask.nonzero()[0]).to(tensor.device)
            tensor = tensor.new_zeros(shape).index_copy(dim, index, tensor)
    return tensor
