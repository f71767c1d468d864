"""`verify`: removing channels must equal silencing them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from billhook.errors import VerifyError
from billhook.graph import inputs as example
from billhook.graph.agreement import TOLERANCE, agree, flat_outputs
from billhook.graph.apply import apply
from billhook.graph.capture import eval_mode, layer_of
from billhook.graph.fusions import fused
from billhook.graph.graph import Graph
from billhook.graph.inputs import Call, ExampleInputs
from billhook.graph.plan import Plan
from billhook.graph.silence import SilencedNetwork, graph_for
from billhook.graph.slicing import cut
from billhook.results import Check


def verify(
    model: nn.Module,
    plan: Plan,
    example_inputs: ExampleInputs,
    *,
    tolerance: float | None = None,
    small: nn.Module | None = None,
) -> Check:
    """Return whether the smaller network computes what the original does with the same channels silenced.

    Costs one pass of each network. Holds for any weights and any data, so random inputs will do.

    Args:
        model: The original network.
        plan: What leaves.
        example_inputs: One batch.
        tolerance: Bound on the largest difference relative to the largest output; default 1e-4 for float32,
            wider for half precision.
        small: The smaller network if it exists already (with the original's weights); else `apply` makes it.
    """
    call = example.as_call(example_inputs)
    model = fused(model, plan)
    graph = graph_for(model, plan, call)
    small = apply(model, plan.attached(graph)) if small is None else small
    silenced = SilencedNetwork(graph, model, plan)
    with torch.no_grad():
        expected = pytree.tree_leaves(silenced.run(call))
    with eval_mode(small):
        got = flat_outputs(small, call)
    absolute, relative, allowed = 0.0, 0.0, tolerance if tolerance is not None else 0.0
    for a, b in zip(expected, got, strict=False):
        if not (isinstance(a, Tensor) and a.numel()):
            continue
        error, scale = difference(a, b)
        absolute, relative = max(absolute, error), max(relative, error / max(scale, 1e-12) if error else 0.0)
        if tolerance is None and a.is_floating_point():
            allowed = max(allowed, TOLERANCE.get(a.dtype, 1e-4))
    agrees = len(expected) == len(got) and relative <= allowed
    removed = set(plan.removed) - {name for b in graph.dropped(plan) for name in b.groups}
    mixed = tuple(g.id for g in graph.groups if g.mixed is not None and g.id in removed)
    first = None if agrees else _first_difference(graph, silenced, small, plan, call, allowed)
    return Check(agrees and not mixed, agrees, absolute, relative, allowed, first, mixed)


def disagreement(
    check: Check, model: nn.Module, example_inputs: ExampleInputs, *, exclude: str
) -> VerifyError:
    """Return the error that explains a check which failed: a random network, or a fault of ours.

    Args:
        check: What `verify` returned.
        model: The original network.
        example_inputs: What it was verified on.
        exclude: How the caller's user leaves a layer alone.
    """
    call = example.as_call(example_inputs)
    with eval_mode(model):
        repeats_itself = agree(flat_outputs(model, call), flat_outputs(model, call))
    if not repeats_itself:
        return VerifyError(
            f"{type(model).__name__} gives different results for the same inputs in eval mode, so nothing "
            "can be verified; make forward deterministic in eval mode (dropout with training=self.training), "
            "or go on unverified"
        )
    return VerifyError(
        f"the smaller network differs from the silenced one by {check.max_rel_error:.2g} of the largest "
        f"output (allowed: {check.tolerance:.2g}), first at layer {check.first_difference!r}; exclude it "
        f"with {exclude}, and please report it: this is a fault in billhook, not in the network"
    )


def difference(a: Tensor, b: Any) -> tuple[float, float]:
    """Return (largest absolute difference, largest absolute value); infinity where shapes or NaNs differ."""
    if not isinstance(b, Tensor) or a.shape != b.shape:
        return float("inf"), 1.0
    x, y = a.detach().double(), b.detach().double()
    same = (x == y) | (x.isnan() & y.isnan())
    error = torch.where(same, 0.0, (x - y).abs()).nan_to_num(float("inf"))
    finite = x[x.isfinite()]
    return float(error.max()), float(finite.abs().max()) if finite.numel() else 1.0


def _first_difference(
    graph: Graph, silenced: SilencedNetwork, small: nn.Module, plan: Plan, call: Call, tolerance: float
) -> str:
    """Return the name of the first layer whose output differs, "output" if only the end can be compared."""
    kept = graph.kept(plan)
    leaves = {n for n, m in small.named_modules() if not list(m.children())}
    expected: dict[str, Tensor] = {}

    def observe(node: fx.Node, value: Any) -> None:
        layer = layer_of(node)
        if isinstance(value, Tensor) and layer in leaves and node not in kept.nodes:
            expected[layer] = cut(value, kept.dims(node)).clone()

    with torch.no_grad():
        silenced.run(call, observe)
    got: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                got[name] = output.clone()

        return keep

    handles = [m.register_forward_hook(hook(n)) for n, m in small.named_modules() if n in leaves]
    try:
        with eval_mode(small):
            flat_outputs(small, call)
    finally:
        for handle in handles:
            handle.remove()
    for layer, tensor in got.items():
        if layer in expected:
            error, scale = difference(expected[layer], tensor)
            if error > tolerance * max(scale, 1e-12):
                return layer
    return "output"
