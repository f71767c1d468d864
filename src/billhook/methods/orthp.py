"""OrthP: one-shot pruning, then orthogonal weights, so that signals and gradients pass unchanged in size."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from billhook.graph import ChannelGroup, Plan
from billhook.methods._base import Method, Outcome, Problem
from billhook.methods._decide import decide
from billhook.methods._growing import makers, unit_means
from billhook.methods._parts import Allocating
from billhook.methods._units import live_tensors
from billhook.options import OneOf, option
from billhook.registry import Info

INFO = Info(
    "removes the smallest units and makes what is left of each layer orthogonal",
    "Wang et al., Dynamical Isometry: The Missing Ingredient for Neural Network Pruning, arXiv:2105.05916",
    notes="gives the network new weights, which must be fine-tuned; helps linear networks, not batch norm",
)

GAINS = {"relu": 2**0.5, "linear": 1.0}


def orthogonal(weight: Tensor, axis: int = 0, gain: float = 1.0) -> Tensor:
    """Return Q of the QR decomposition of `weight`, times the gain.

    W is taken as [n, rest] with its outputs along `axis`. Its rows become orthonormal, or, where there are
    more of them than entries in a row, its columns do. Signs are those that make R's diagonal positive, so
    an orthogonal W comes back as it is.

    Args:
        weight: Any shape with at least two axes.
        axis: That of the outputs.
        gain: What all singular values become.
    """
    moved = weight.movedim(axis, 0)
    matrix = moved.flatten(1).double()
    wide = matrix.shape[0] < matrix.shape[1]
    q, r = torch.linalg.qr(matrix.T if wide else matrix)
    signs = torch.where(r.diagonal() < 0, -1.0, 1.0)
    q = q * signs.to(q)
    result: Tensor = gain * (q.T if wide else q)
    return result.reshape(moved.shape).movedim(0, axis).to(weight)


@dataclass(frozen=True)
class OrthP(Allocating, Method):
    """One-shot selection by mean |w|; then every layer that makes units in scope gets orthogonal weights.

    Pruning breaks dynamical isometry (singular values of the input-output Jacobian near 1), and with it
    trainability. OrthP repairs it: what stays of a layer's weights, [kept outputs, kept inputs · kernel],
    becomes orthogonal, times the gain of the activation. Norms, biases, layers that make no unit in scope
    (such as the classifier) and all that leaves stay as they are. Little of what the network had learnt
    survives: fine-tune, at the rate of training (see `finetune.lr = "auto"`).

    The authors report that it helps linear networks and plain perceptrons, but costs accuracy in networks
    with batch norm.

    References:
        Wang et al., "Dynamical Isometry: The Missing Ingredient for Neural Network Pruning", 2021; the step
        itself follows the authors' later code.
    Differs from the source:
        Layers out of scope are not touched. One activation is meant for the whole network. Grouped
        convolutions count as one matrix.
    """

    allocator: str = "uniform"
    activation: str = option("relu", OneOf(*GAINS), "sets the gain: √2 or 1")

    def run(self, problem: Problem) -> Outcome:
        """Return the plan, and a copy of the network with the new weights."""
        tensors = live_tensors(problem.model)
        plan = decide(problem, {g.id: unit_means(tensors, g) for g in problem.groups}, self.allocating())
        model = copy.deepcopy(problem.model)
        self._repair(live_tensors(model), problem.groups, plan)
        return Outcome(plan, model)

    @torch.no_grad()
    def _repair(self, tensors: Mapping[str, Tensor], groups: tuple[ChannelGroup, ...], plan: Plan) -> None:
        stays = _kept_indices(tensors, groups, plan)
        made = {m.tensor: m.axis for g in groups for m in makers(tensors, g) if m.role == "out"}
        for name, axis in made.items():
            weight = tensors[name]
            if weight.dim() < 2:
                continue
            block = weight
            for along, mask in stays[name].items():
                block = block.index_select(along, mask.nonzero().flatten().to(weight.device))
            repaired = orthogonal(block, axis, GAINS[self.activation])
            grid = [
                stays[name].get(along, torch.ones(length, dtype=torch.bool)).nonzero().flatten()
                for along, length in enumerate(weight.shape)
            ]
            weight[torch.meshgrid(*(g.to(weight.device) for g in grid), indexing="ij")] = repaired


def _kept_indices(
    tensors: Mapping[str, Tensor], groups: tuple[ChannelGroup, ...], plan: Plan
) -> dict[str, dict[int, Tensor]]:
    """Return which indices stay: {tensor: {axis: boolean [length]}}, for the axes that groups own."""
    found: dict[str, dict[int, Tensor]] = {}
    for group in groups:
        leaves = ~torch.from_numpy(plan.keep[group.id].copy())
        for m in group.members:
            whole = torch.ones(tensors[m.tensor].shape[m.axis], dtype=torch.bool)
            mask = found.setdefault(m.tensor, {}).setdefault(m.axis, whole)
            mask[torch.tensor(m.index)[leaves].flatten()] = False
    return found


ENTRY = OrthP
