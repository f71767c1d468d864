"""`apply`: from a network and a plan to the smaller network. Nothing else removes anything.

Channels leave first; patterns are those of the tensors that are left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from billhook.errors import ApplyError, CaptureError
from billhook.graph import patch
from billhook.graph.agreement import agree, flat_outputs
from billhook.graph.alive import enliven_
from billhook.graph.capture import eval_mode
from billhook.graph.constants import Kept
from billhook.graph.exported import ExportedNetwork, ExportedSection
from billhook.graph.fusions import as_layers, fused
from billhook.graph.graph import Graph, capture_call, graph_of
from billhook.graph.inputs import Call
from billhook.graph.layers import LayeredNetwork, take_after
from billhook.graph.plan import Plan
from billhook.graph.section import sections
from billhook.graph.slicing import copy_around, fill, hollow
from billhook.graph.structure import impose_

_LOG = logging.getLogger("billhook")


def apply(model: nn.Module, plan: Plan) -> nn.Module:
    """Return the smaller network that `plan` describes; `model` is not touched.

    The result is a copy of the user's own module with cut tensors and matching attributes. It is run once,
    with random weights, and compared with the captured graph in which the same channels are gone. Where
    forward holds sizes that cannot be changed from outside (literals in a view, in a slice), the result is
    that graph itself, an `ExportedNetwork`, and a message is logged.

    Where residual branches are gone, the modules that hold their additions are replaced by their part of the
    graph, which has neither the branch nor the addition; if only the whole network is such a module, the
    result is its graph. All tensors that are left keep their names.

    Args:
        model: The network the plan was made for, with any weights; where the plan names fusions, the original
            or what they make of it.
        plan: From `prune`, `make_plan` or a file.
    Raises:
        PlanError: if the plan is for another network. ApplyError: if no smaller network could be built.
    """
    model = fused(model, plan)
    graph = graph_of(model, plan)
    kept = graph.kept(plan)
    program = graph.program
    tensors = hollow(model, kept, program.shapes)
    enliven_(tensors)  # the real weights come last, so that the smaller network is never held twice
    reference = ExportedNetwork(program, tensors, kept).eval()
    call = _like(graph.call, tensors)
    expected = _outputs(reference, call, "the captured graph of the smaller network")
    free, why = free_batch(model, graph) if kept.dropped else (graph, None)
    parts = _parts(model, free, plan, tensors) if kept.dropped else {}
    small = None
    if parts or not kept.dropped:
        small = _own_module(model, graph, kept, tensors, call, expected, parts)
    rewritten = small is None and isinstance(model, LayeredNetwork)
    if rewritten:
        small = _exported(model, graph, plan, reference).train(model.training)
    elif small is None:
        _LOG.warning(
            "%s: forward %s; the smaller network is its exported graph",
            type(model).__name__,
            f"computes {kept.dropped[0].id!r}, which is gone"
            if kept.dropped and not parts
            else "holds sizes that cannot be changed from outside",
        )
        small = _exported(model, graph, plan, reference).train(model.training)
    elif why and parts:
        _LOG.warning("%s works only for the batch size of the example inputs (%s)", ", ".join(parts), why)
    fill(tensors, model, kept)
    impose_(tensors, plan.patterns)
    if program.unused and plan.removed:
        _LOG.warning(
            "%s: layers that do not run in eval mode were left as they are and may no longer fit: %s; "
            "switch them off before training",
            type(model).__name__,
            ", ".join(program.unused[:6]) + (" …" if len(program.unused) > 6 else ""),
        )
    return _as_layers(small, model, graph.call, plan) if rewritten else small


def _as_layers(small: nn.Module, model: nn.Module, call: Call, plan: Plan) -> LayeredNetwork:
    """Return an exported network as a graph of plain layers, which the network was that it came from."""
    network = as_layers(small, _like(call, dict(small.named_parameters())))
    network.meta["fusions"] = plan.fusions
    take_after(network, model)
    return network


def apply_(model: nn.Module, plan: Plan) -> nn.Module:
    """Make `model` itself smaller and return it; optimizers that hold its old parameters become stale.

    Raises:
        ApplyError: if the smaller network is not of the same class (see `apply`); `model` is left whole.
    """
    small = apply(model, plan)
    layers = isinstance(small, LayeredNetwork) and isinstance(model, LayeredNetwork)
    if type(small) is not type(model) and not layers:
        raise ApplyError(
            f"{type(model).__name__} cannot be made smaller in place, because its forward holds fixed sizes; "
            "use apply"
        )
    model.__class__ = type(small)  # each graph of layers has a class of its own, which holds its code
    model.__dict__.clear()
    model.__dict__.update(small.__dict__)
    return model


def _own_module(
    model: nn.Module,
    graph: Graph,
    kept: Kept,
    tensors: dict[str, Tensor],
    call: Call,
    expected: list[Any],
    parts: Mapping[str, nn.Module],
) -> nn.Module | None:
    """Return the user's module around the cut tensors, if one way of patching its attributes is right.

    Modules that hold branches which are gone are replaced by `parts`.
    """
    found = list(patch.changes(graph.program, kept))
    tries: list[Callable[[nn.Module], None]] = [lambda m: None]
    if found:
        tries = [
            lambda m: patch.patch_sizes(m, found, likely_only=True),
            lambda m: None,
            lambda m: patch.patch_sizes(m, found, likely_only=False),
        ]
    for attempt in tries:
        small = copy_around(model, tensors)
        for name, part in parts.items():
            small.set_submodule(name, part)
        try:
            patch.patch_known(small, graph.program, kept)
            patch.replace_attention(small)
            attempt(small)
            with eval_mode(small):
                got = _outputs(small, call, "the smaller network")
            if kept.dropped and not {n for n, _ in small.named_parameters()} <= tensors.keys():
                raise ApplyError("a part of the branch that is gone is still there under another name")
        except ApplyError as e:
            _LOG.debug("%s", e)
            continue
        if agree(expected, got):
            return small
        _LOG.debug("the smaller %s runs but disagrees with its graph", type(model).__name__)
    return None


def _parts(model: nn.Module, graph: Graph, plan: Plan, tensors: Mapping[str, Tensor]) -> dict[str, nn.Module]:
    """Return what replaces the modules that hold branches which are gone; none if single ones cannot be."""
    kept = graph.kept(plan)
    found: dict[str, nn.Module] = {}
    for section in sections(graph.program, kept):
        mode = model.get_submodule(section.name).training
        found[section.name] = ExportedSection(graph.program, tensors, kept, section).train(mode)
    return found


def free_batch(model: nn.Module, graph: Graph) -> tuple[Graph, str | None]:
    """Return `graph` for any batch size where the network allows it, else as it is and why not."""
    try:
        if "free batch" not in graph.variants:
            graph.variants["free batch"] = capture_call(model, graph.call, graph.mixing, dynamic_batch=True)
        free = graph.variants["free batch"]
        if free.fingerprint != graph.fingerprint or free.branch_of.keys() != graph.branch_of.keys():
            raise CaptureError("groups differ when the batch size is free")
        return free, None
    except CaptureError as e:
        return graph, str(e).splitlines()[0]


def _exported(model: nn.Module, graph: Graph, plan: Plan, reference: ExportedNetwork) -> ExportedNetwork:
    """Return the exported network, for any batch size where the network allows it."""
    free, why = free_batch(model, graph)
    try:
        if why is not None:
            raise CaptureError(why)
        tensors = dict(reference.named_parameters()) | dict(reference.named_buffers())
        known = {n: t for n, t in tensors.items() if n in free.program.shapes}
        network = ExportedNetwork(free.program, known, free.kept(plan))
        with eval_mode(network):
            call, what = _like(graph.call, tensors), "the exported network"
            if agree(_outputs(reference, call, what), _outputs(network, call, what)):
                return network
        raise CaptureError("results differ when the batch size is free")
    except (CaptureError, ApplyError) as e:
        _LOG.warning(
            "the exported network works only for the batch size of the example inputs (%s)",
            str(e).splitlines()[0],
        )
        return reference


def _outputs(network: nn.Module, call: Call, what: str) -> list[Any]:
    try:
        return flat_outputs(network, call)
    except Exception as e:
        first = str(e).strip().splitlines()[0] if str(e).strip() else ""
        raise ApplyError(f"{what} does not run: {type(e).__name__}: {first}") from e


def _like(call: Call, tensors: dict[str, Tensor]) -> Call:
    """Return the call with its tensors on the network's device."""
    device = next((t.device for t in tensors.values()), torch.device("cpu"))
    return pytree.tree_map_only(Tensor, lambda t: t.to(device), call)  # type: ignore[no-any-return]
