"""ADMM: training pulls the weights towards their projection, until projecting hardly changes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from billhook.errors import PenaltyError
from billhook.graph.patterns import parse_pattern
from billhook.graph.structure import Structure
from billhook.methods._schedule import round_at
from billhook.methods.sparse._base import SparseProblem
from billhook.methods.sparse._training import SparseCallback, SparseTraining
from billhook.options import Above, Number, option
from billhook.registry import Info
from billhook.train import StepContext

INFO = Info(
    "pulls weights towards the nearest tensor with the wanted pattern while the network is trained",
    "Zhang et al., A Systematic DNN Weight Pruning Framework using ADMM, ECCV 2018, arXiv:1804.03294",
    needs_data=True,
    trains=True,
    notes="with the pattern 'unified': weight unification (arXiv:2106.08301)",
)


def penalty_gradient(weight: Tensor, z: Tensor, u: Tensor, rho: float) -> Tensor:
    """Return ρ (W - Z + U), the gradient of ρ/2 ‖W - Z + U‖²."""
    return rho * (weight - z + u)


def rho_at(number: int, rounds: int, start: float, end: float) -> float:
    """Return ρ in round `number` from 1: it grows geometrically from `start` to `end`."""
    if rounds == 1:
        return end
    return float(start * (end / start) ** ((number - 1) / (rounds - 1)))


@dataclass(frozen=True)
class Admm(SparseTraining):
    """min f(W) subject to W ∈ S, split into training with a quadratic penalty and a projection.

    Each round: Z ← Π_S(W + U), U ← U + W - Z; in the steps between, every weight's gradient gets
    ρ (W - Z + U). ρ grows from round to round; U, which is the multiplier divided by ρ, shrinks as ρ grows.
    Zeros are shared out between tensors once, at the beginning. It ends when ‖W - Z‖ ≤ `tolerance` · ‖W‖ for
    every weight, or after `until` of the training; then W is projected and the structure held.

    References:
        Zhang et al., "A Systematic DNN Weight Pruning Framework using Alternating Direction Method of
        Multipliers", ECCV 2018. With unified blocks: Lin et al., "Efficient Micro-Structured Weight
        Unification and Pruning for Neural Network Compression", 2021. arXiv:2106.08301 (reconstructed).
        Scaling of U: Boyd et al., "Distributed Optimization and Statistical Learning via the ADMM", 2011,
        section 3.4.1.
    Differs from the source:
        Rounds are shares of the training instead of numbers of epochs, and the learning rate is not reset in
        each; ρ grows in small steps.
    """

    rounds: int = option(12, Number(1, integer=True), "how often Z and U are renewed")
    rho_start: float = option(1e-2, Above(0), "strength of the pull at the beginning")
    rho_end: float = option(1.0, Above(0), "strength of the pull at the end")
    tolerance: float = option(1e-2, Number(0), "stop when no weight is further from its projection")

    def callback(self, problem: SparseProblem) -> SparseCallback:
        """Return what pulls."""
        return AdmmCallback(self, problem)


class AdmmCallback(SparseCallback):
    """Keeps Z, U and ρ."""

    def __init__(self, method: Admm, problem: SparseProblem) -> None:
        super().__init__(method, problem)
        self.method = method

    @torch.no_grad()
    def begin(self, context: StepContext) -> None:
        """Share the zeros out; Z = Π(W), U = 0."""
        super().begin(context)
        weights = self._weights(context)
        shares = self.problem.shares_of(weights)
        structures = self.problem.by_magnitude(weights, shares)
        self.memory |= {
            "patterns": {n: str(s.pattern.settled(s.parts)) for n, s in structures.items()},
            "shares": shares,
            "rho": self.method.rho_start,
            "norm": {n: float(w.norm()) for n, w in weights.items()},
            "Z": {n: _like(w, structures[n].project(w)) for n, w in weights.items()},
            "U": {n: torch.zeros_like(w) for n, w in weights.items()},
        }
        self._settle_patterns()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        super().load_state_dict(state)
        self._settle_patterns()

    def _settle_patterns(self) -> None:
        """Project onto the same set each time, whatever a pattern has chosen from the first weights."""
        if "patterns" in self.memory:
            read = {n: parse_pattern(text) for n, text in self.memory["patterns"].items()}
            self.problem = replace(self.problem, patterns=read, captured=self.problem.graph)

    def act(self, context: StepContext) -> None:
        """Renew Z and U when a round begins."""
        due = round_at(context.step, context.total_steps, self.method.rounds, self.until)
        if due is not None and context.step > 0:
            self._renew(context, due)

    @torch.no_grad()
    def pull(self, context: StepContext) -> None:
        """Add the gradient of the penalty."""
        z, u, rho = self.memory["Z"], self.memory["U"], self.memory["rho"]
        for name, weight in self.problem.weights(context.model).items():
            if weight.grad is not None:
                weight.grad += penalty_gradient(weight.detach(), z[name], u[name], rho)

    def settle(self, context: StepContext) -> Mapping[str, Structure]:
        """Return the structure of Π(W)."""
        return self.problem.by_magnitude(self._weights(context), self.memory["shares"])

    @torch.no_grad()
    def _renew(self, context: StepContext, number: int) -> None:
        weights, z, u = self._weights(context), self.memory["Z"], self.memory["U"]
        structures = self.problem.by_magnitude(
            {n: w + u[n] for n, w in weights.items()}, self.memory["shares"]
        )
        primal, dual = {}, {}
        for name, weight in weights.items():
            scale = max(float(weight.norm()), 1e-12)
            new = _like(weight, structures[name].project(weight + u[name]))
            primal[name] = float((weight - new).norm()) / scale
            dual[name] = float((new - z[name]).norm()) / scale
            u[name] += weight - new
            z[name] = new
            first = self.memory["norm"][name] or scale  # a weight of zeros has just begun
            self.memory["norm"][name] = first
            if not math.isfinite(primal[name]) or scale > _GROWTH * first:
                raise PenaltyError(name, context.step, self.memory["rho"], "rho_end")
        self.memory["log"].append(
            {
                "step": context.step,
                "rho": self.memory["rho"],
                "primal": max(primal.values()),
                "dual": max(dual.values()),
            }
        )
        rho = rho_at(number, self.method.rounds, self.method.rho_start, self.method.rho_end)
        for tensor in u.values():
            tensor *= self.memory["rho"] / rho
        self.memory["rho"] = rho
        if max(primal.values()) <= self.method.tolerance:
            self.fix(context)

    def _weights(self, context: StepContext) -> dict[str, Tensor]:
        return {n: w.detach() for n, w in self.problem.weights(context.model).items()}


_GROWTH = 100.0  # a weight that has grown so many times in norm is running away


def _like(weight: Tensor, values: Tensor) -> Tensor:
    """Return `values` in the memory layout of `weight`."""
    return torch.empty_like(weight).copy_(values)


ENTRY = Admm
