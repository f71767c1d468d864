"""An oracle for pruning that shares no code with what it checks, and weights that make its answer count.

Where removed channels are consumed by weights, zeroing those weights in a copy of the original must give what
the smaller network computes. Only the group table (names, axes, indices, roles) is trusted here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils import _pytree as pytree

from billhook.graph import ExampleInputs, Graph, Groups, Plan, apply, capture, make_plan, verify
from billhook.graph.inputs import as_call

CONSUMERS = ("in",)
EVERYTHING = ("in", "out", "through")  # for channels that a sum or a product consumes, not a weight


def randomize(model: nn.Module, seed: int = 0, example_inputs: ExampleInputs | None = None) -> nn.Module:
    """Draw all weights and statistics anew; return `model`. Every channel matters then, and activations live.

    Fresh networks have zeros (heads, biases, layer scale) and ones (norms), which make two networks agree by
    chance.
    With example inputs, batch norms get statistics near those of the activations; deep networks need that,
    because activations that grow from layer to layer end in a softmax that turns rounding into differences.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = {
        f"{name}.{leaf}" if name else leaf
        for name, module in model.named_modules()
        if isinstance(module, (_NormBase, nn.LayerNorm, nn.GroupNorm))
        or type(module).__name__.endswith("Norm")
        for leaf, _ in module.named_parameters(recurse=False)
        if leaf != "bias"
    }
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.is_floating_point():
                parameter.copy_(_draw(name, parameter, name in norms, generator))
        for module in model.modules():
            if isinstance(module, _NormBase) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
    if example_inputs is not None:
        _calibrate(model, example_inputs, generator)
    return model


def _calibrate(model: nn.Module, example_inputs: ExampleInputs, generator: torch.Generator) -> None:
    def measure(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x, shape = args[0].float(), module.running_mean.shape
        dims = [d for d in range(x.dim()) if d != 1]
        variance = x.var(dims, unbiased=False).clamp_min(0.1 * float(x.var(unbiased=False)) + 1e-6)
        shift = 0.3 * torch.randn(shape, generator=generator)
        module.running_mean.copy_(x.mean(dims) + shift * variance.sqrt())
        module.running_var.copy_(variance * (0.5 + torch.rand(shape, generator=generator)))

    norms = [m for m in model.modules() if isinstance(m, _NormBase) and m.running_mean is not None]
    handles = [m.register_forward_pre_hook(measure) for m in norms]
    try:
        outputs(model, example_inputs)
    finally:
        for handle in handles:
            handle.remove()


def _draw(name: str, tensor: Tensor, norm: bool, generator: torch.Generator) -> Tensor:
    leaf = name.rpartition(".")[2]
    drawn = torch.empty(tensor.shape, dtype=torch.float32)
    if norm or leaf in ("gamma", "layer_scale", "lambda1") or "scale" in leaf:
        drawn.uniform_(0.5, 1.5, generator=generator)
    elif tensor.dim() < 2 or "bias" in leaf:
        drawn.normal_(0, 0.3, generator=generator)
    else:
        fan_in = max(tensor[0].numel(), 1)
        drawn.normal_(0, min(1.0, (2 / fan_in) ** 0.5), generator=generator)
    return drawn.to(tensor.dtype)


def random_plan(graph: Graph, share: float = 0.5, seed: int = 0) -> Plan:
    """Return a plan that removes a random `share` of the units of every prunable group, but never all."""
    generator = np.random.default_rng(seed)
    keep: dict[str, Any] = {}
    for group in graph.groups.prunable:
        left = min(max(1, round(group.size * (1 - share))), group.size - 1)
        keep[group.id] = generator.permutation(group.size) < left
    return make_plan(graph, keep, method="random", seed=seed)


def zeroed(model: nn.Module, groups: Groups, plan: Plan, roles: Sequence[str] = CONSUMERS) -> nn.Module:
    """Return a copy of `model` in which every weight that reads a removed channel is zero.

    Groups that no weight reads have the weights zeroed that make their channels.
    """
    muted = copy.deepcopy(model)
    tensors = dict(muted.named_parameters(remove_duplicate=False)) | dict(
        muted.named_buffers(remove_duplicate=False)
    )
    with torch.no_grad():
        for group_id, keep in plan.keep.items():
            group = groups[group_id]
            consumed = any(m.role == "in" for m in group.members)
            for member in group.members:
                if member.role in (roles if consumed else EVERYTHING):
                    gone = torch.from_numpy(member.index[~keep].reshape(-1))
                    tensors[member.tensor].index_fill_(member.axis, gone, 0)
    return muted


@dataclass(frozen=True)
class Comparison:
    """How far two networks are apart, relative to the largest output.

    Attributes:
        error: Between the zeroed original and the smaller network; infinite if shapes differ.
        effect: Between the zeroed and the untouched original: 0 would mean that the check is vacuous.
    """

    error: float
    effect: float


def compare(
    model: nn.Module,
    groups: Groups,
    plan: Plan,
    small: nn.Module,
    example_inputs: ExampleInputs,
    roles: Sequence[str] = CONSUMERS,
) -> Comparison:
    """Return how far the smaller network is from the original with zeroed consumers, in eval mode."""
    original = outputs(model, example_inputs)
    expected = outputs(zeroed(model, groups, plan, roles), example_inputs)
    return Comparison(_distance(expected, outputs(small, example_inputs)), _distance(original, expected))


def outputs(model: nn.Module, example_inputs: ExampleInputs) -> list[Tensor]:
    """Return all tensors the network returns in eval mode; the network's modes stay as they are."""
    args, kwargs = as_call(example_inputs)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            result = model(*args, **kwargs)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return [leaf for leaf in pytree.tree_leaves(_plain(result)) if isinstance(leaf, Tensor)]


def _plain(value: Any) -> Any:
    """Return `value` with mappings and data classes of other libraries as plain dicts."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return value


def _distance(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    if len(expected) != len(got):
        return float("inf")
    worst = 0.0
    for a, b in zip(expected, got, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if a.numel() == 0:
            continue
        a, b = a.double(), b.double()
        if not (a.isfinite().all() and b.isfinite().all()):
            return 0.0 if torch.equal(a.nan_to_num(), b.nan_to_num()) else float("inf")
        worst = max(worst, float((a - b).abs().max() / a.abs().max().clamp_min(1e-12)))
    return worst


@dataclass(frozen=True)
class Pruned:
    """A network, what left it, and what remained; see `prune_half`."""

    graph: Graph
    plan: Plan
    small: nn.Module


def prune_half(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    mixing: Literal["freeze", "allow"] = "freeze",
    roles: Sequence[str] = CONSUMERS,
    seed: int = 0,
) -> Pruned:
    """Remove a random half of everything that may leave, after assuring that the result is right.

    Right means: silence equals removal, and, where that is exact, the zeroed original agrees as well. The
    comparison must not be vacuous: the removed channels matter to the output.
    """
    graph = capture(model, example_inputs, mixing=mixing)
    assert graph.groups.prunable, [str(g.frozen) for g in graph.groups]
    plan = random_plan(graph, seed=seed)
    small = apply(model, plan)
    check = verify(model, plan, example_inputs, small=small)
    assert check.agrees, check
    if check.exact:
        distance = compare(model, graph.groups, plan, small, example_inputs, roles)
        assert distance.error <= 1e-4, distance
        assert distance.effect > 1e-3, "the removed channels do not matter to the output"
    return Pruned(graph, plan, small)
