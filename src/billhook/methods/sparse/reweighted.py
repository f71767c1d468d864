"""Reweighted dynamic regularisation: small groups are driven to zero, large ones hardly shrink."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from billhook.graph.patterns import Pattern
from billhook.graph.structure import Structure
from billhook.methods._schedule import round_at
from billhook.methods.sparse._base import SparseProblem
from billhook.methods.sparse._training import SparseCallback, SparseTraining
from billhook.options import Above, Number, OrAuto, option
from billhook.registry import Info
from billhook.train import StepContext

INFO = Info(
    "penalises groups by the inverse of their size, renewed as training goes on",
    "Gong et al., Automatic Mapping of the Best-Suited DNN Pruning Schemes, TODAES 2022, arXiv:2111.11581",
    needs_data=True,
    trains=True,
    notes="how many weights of a layer leave emerges from training",
)


def penalties(pattern: Pattern, view: Tensor, epsilon: float) -> Tensor:
    """Return per weight the sum of P_g = 1 / (mean square of the group + ε) over its groups g.

    Args:
        pattern: Says what the groups are.
        view: The weight, [outputs, inputs, positions].
        epsilon: ε.
    """
    energy = view.square().requires_grad_()
    with torch.enable_grad():
        total = energy.new_zeros(())
        for groups in pattern.groups(energy):
            p = 1 / (groups.detach() * len(groups) / view.numel() + epsilon)
            total = total + (groups * p).sum()
        # A group's energy is linear in those of its weights: the gradient tells which groups a weight is in.
        (per_weight,) = torch.autograd.grad(total, energy)
    return per_weight


def shrunk(weight: Tensor, penalty: Tensor, step: float) -> Tensor:
    """Return argmin_v ½ ‖v - w‖² + step · Σ P v²: w / (1 + 2 · step · P)."""
    return weight / (1 + 2 * step * penalty)


@dataclass(frozen=True)
class Reweighted(SparseTraining):
    """Loss + λ Σ_g P_g · mean square of group g, with P_g = 1 / (mean square of g + ε) renewed in each round.

    In each step the mean square of any group falls by 4 · learning rate · λ, if nothing holds against it.
    With λ = "auto" it falls by the same in all steps, whatever the learning rate, and in all of them together
    by three times the mean square of the group that is just large enough to stay. After `until` of the
    training the smallest groups leave, all tensors' together, so that each tensor's sparsity is what training
    has made of it.

    References:
        Gong et al., 2022, and Ma et al., "BLK-REW: A Unified Block-based DNN Pruning Framework using
        Reweighted Regularization Method", 2020. arXiv:2001.08357. Reconstructed.
    Differs from the source:
        The penalty acts as a proximal step after the optimiser's, which is stable for any P and the same for
        any optimiser; in the source its gradient goes through the optimiser. The wanted sparsity takes the
        place of a threshold.
    """

    rounds: int = option(5, Number(1, integer=True), "how often P is renewed")
    strength: float | str = option("auto", OrAuto(0), "λ; 'auto' follows from the wanted sparsity")
    epsilon: float = option(1e-3, Above(0), "ε relative to the mean square of a tensor")

    def callback(self, problem: SparseProblem) -> SparseCallback:
        """Return what shrinks."""
        return ReweightedCallback(self, problem)


class ReweightedCallback(SparseCallback):
    """Keeps P and λ."""

    def __init__(self, method: Reweighted, problem: SparseProblem) -> None:
        super().__init__(method, problem)
        self.method = method

    def begin(self, context: StepContext) -> None:
        """Settle how much goes in a step."""
        super().begin(context)
        # Relative to each tensor's mean square: sizes of different tensors say nothing about each other.
        steps = max(1, round(self.until * context.total_steps))
        auto = self.method.strength == "auto"
        self.memory["amount"] = _TIMES * self._threshold(context) / (4 * steps) if auto else None

    @torch.no_grad()
    def act(self, context: StepContext) -> None:
        """Renew P when a round begins."""
        due = round_at(context.step, context.total_steps, self.method.rounds, self.until)
        if due is None:
            return
        weights = self.problem.weights(context.model)
        self.memory["P"] = {}
        for name, view in self.problem.views(weights).items():
            relative = view / view.square().mean().sqrt().clamp_min(1e-15)
            penalty = penalties(self.problem.patterns[name], relative, self.method.epsilon)
            transposed = self.problem.layers[name].transposed
            self.memory["P"][name] = _back(penalty, weights[name], transposed=transposed)

    @torch.no_grad()
    def push(self, context: StepContext) -> None:
        """Shrink."""
        amount = self.memory["amount"]
        if amount is None:
            rate = max(group["lr"] for group in context.optimizer.param_groups)
            amount = rate * float(self.method.strength)
        for name, weight in self.problem.weights(context.model).items():
            if weight.requires_grad:
                weight.copy_(shrunk(weight, self.memory["P"][name], amount))

    def settle(self, context: StepContext) -> Mapping[str, Structure]:
        """Let the smallest groups leave."""
        return self.problem.by_magnitude(self.problem.weights(context.model))

    @torch.no_grad()
    def _threshold(self, context: StepContext) -> float:
        """Return the relative mean square of the group that is just large enough to stay."""
        energies = self.problem.energies(self.problem.weights(context.model))
        shares = self.problem.share_out(energies)
        total, found = 0, 0.0
        for name, energy in energies.items():
            pattern = self.problem.patterns[name]
            units = pattern.units(energy)
            relative = units / units.mean().clamp_min(1e-30)
            leaving = min(1.0, pattern.units_for(energy, shares[name]))
            found += energy.numel() * float(torch.quantile(relative[:_MOST], leaving))
            total += energy.numel()
        return found / total


_TIMES = 3.0  # so that what leaves is nearly zero by then, though the loss holds against it
_MOST = 2**24 - 1  # values that a quantile is taken of, at most


def _back(view: Tensor, weight: Tensor, *, transposed: bool) -> Tensor:
    """Return values [outputs, inputs, positions] in shape and layout of the weight they belong to."""
    shape = weight.transpose(0, 1).shape if transposed else weight.shape
    values = view.reshape(shape)
    return torch.empty_like(weight).copy_(values.transpose(0, 1) if transposed else values)


ENTRY = Reweighted
