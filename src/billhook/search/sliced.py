"""Sliced networks: the captured graph, run with what a candidate keeps of every tensor; no module is built.

Making one takes about 10 ms for a ResNet-20. With `live_tensors` gradients reach the tensors that were cut,
so that many widths can be trained in one set of weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from billhook.graph import ExportedNetwork, Graph, Plan
from billhook.graph.constants import Kept, Mask
from billhook.graph.inputs import as_call
from billhook.graph.rules._base import bind
from billhook.graph.slicing import cut_named
from billhook.train.placement import as_channels_last

Tensors = Mapping[str, Tensor]


def sliced(graph: Graph, plan: Plan, tensors: Tensors) -> ExportedNetwork:
    """Return the network of a plan, in eval mode, with copies of what it keeps of `tensors`; patterns are not
    imposed.

    Args:
        graph: Of the network in full size; best one with a free batch size.
        plan: Which channels stay.
        tensors: All parameters and buffers in full size, by name.
    """
    kept = graph.kept(plan)
    names = [n for n in graph.program.shapes if n not in kept.tensors]
    cut = {n: cut_named(n, tensors[n], kept).clone() for n in names}
    return ExportedNetwork(graph.program, cut, kept).eval()


def live_tensors(tensors: Tensors, kept: Kept) -> dict[str, Tensor]:
    """Return what stays of tensors, as views or selections through which gradients flow back.

    Give them to `torch.func.functional_call(network, live_tensors(weights, kept), inputs)`. Numbers of
    channels become those of the smaller network.
    """
    return {
        name: _selected(tensor, kept.tensor(name, tensor.dim()))
        if tensor.is_floating_point()
        else cut_named(name, tensor, kept)
        for name, tensor in tensors.items()
        if name not in kept.tensors
    }


def _selected(tensor: Tensor, masks: list[Mask | None]) -> Tensor:
    for axis, mask in enumerate(masks):
        if mask is not None:
            count = int(mask.sum())
            if mask[:count].all():  # the first ones: a view, no copy
                tensor = tensor.narrow(axis, 0, count)
            else:
                tensor = tensor.index_select(axis, torch.from_numpy(np.flatnonzero(mask)).to(tensor.device))
    return tensor


def as_fast_(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Put a network's floats into `dtype` and, if they are images' filters, channels last; in place.

    bf16 where a CPU computes in it is 1.5 to 2 times as fast as float32. Folding batch norms as well gained
    nothing (ResNet-20 and small VGG, 2,000 images on one core: 0.112 and 0.161 s with and without), so they
    stay.
    """
    return network.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def fast_inputs(inputs: Any, dtype: torch.dtype) -> Any:
    """Return inputs with floats in `dtype`, images channels last."""
    cast = pytree.tree_map_only(Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, inputs)
    return as_channels_last(cast)


def settle_statistics_(network: ExportedNetwork, batches: Iterable[Any]) -> int:
    """Measure the statistics of all batch norms anew, as plain averages over batches; return how many.

    Only batch norms are in training mode meanwhile. In place; float32 is best.

    Args:
        network: As `sliced` returns it.
        batches: Inputs as the model takes them.
    """
    norms = _statistics(network)
    if not norms:
        return 0
    body = fx.GraphModule({}, _measuring(network._inference.graph))
    sums = {name: torch.zeros_like(norms[name]) for name in norms}
    count = 0
    inference, network._inference = network._inference, body
    try:
        with torch.no_grad():
            for inputs in batches:
                args, kwargs = as_call(inputs)
                network(*args, **kwargs)  # momentum 1: statistics are this batch's
                for name, buffer in norms.items():
                    sums[name] += buffer
                count += 1
    finally:
        network._inference = inference
    with torch.no_grad():
        for name, buffer in norms.items():
            buffer.copy_(sums[name] / max(1, count))
    return count


def _statistics(network: ExportedNetwork) -> dict[str, Tensor]:
    """Return the running statistics that batch norms of the graph read, by name."""
    names = [n.name for n in network._inference.graph.nodes if n.op == "placeholder"]
    sources = dict(zip(names, network._sources, strict=True))
    buffers = dict(network.named_buffers())
    found: dict[str, Tensor] = {}
    for node in _batch_norms(network._inference.graph):
        call = bind(node)
        for argument in ("running_mean", "running_var"):
            value = call.get(argument)
            if isinstance(value, fx.Node) and sources.get(value.name) in buffers:
                name = sources[value.name]
                found[name] = buffers[name]
    return found


def _measuring(graph: fx.Graph) -> fx.Graph:
    """Return a copy of the graph in which batch norms use and store the statistics of the batch."""
    copy = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    measured = set(_batch_norms(graph))
    for node in graph.nodes:
        copies[node] = copy.node_copy(node, lambda n: copies[n])
        if node in measured:
            values = list(copies[node].args)
            names = [a.name for a in node.target._schema.arguments]
            values[names.index("training")], values[names.index("momentum")] = True, 1.0
            copies[node].args = tuple(values)
    return copy


def _batch_norms(graph: fx.Graph) -> list[fx.Node]:
    """Return the batch norms that have running statistics."""
    norms = [n for n in graph.nodes if n.op == "call_function" and hasattr(n.target, "_schema")]
    norms = [n for n in norms if bind(n).name == "batch_norm"]
    return [n for n in norms if isinstance(bind(n).get("running_mean"), fx.Node)]
