"""ThiNet: what the next layer can do without, decided layer by layer with training in between."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from billhook.errors import InputError
from billhook.graph import Plan
from billhook.methods._base import Problem
from billhook.methods._fixed_widths import FixedWidths
from billhook.methods._parts import Allocating
from billhook.methods._training import MethodCallback, TrainingMethod
from billhook.methods._units import live_tensors, scale_, silence_, unit_norms
from billhook.options import Number, OneOf, option
from billhook.registry import Info
from billhook.train import StepContext
from billhook.train.reader_layers import find_readers
from billhook.train.reconstruction import contributions, moments

INFO = Info(
    "units whose contributions to the next layer the others make up for, one layer at a time",
    "Luo et al., ThiNet, ICCV 2017, arXiv:1707.06342, and TPAMI 2019",
    needs_data=True,
    trains=True,
    notes="rescales the weights that read what stays, by least squares",
)

RIDGE = 1e-6  # of the mean of the diagonal: enough where channels are copies of each other


def backward_greedy(gram: Tensor, removed: int) -> Tensor:
    """Return which units stay when units leave one by one, so that ‖Σ_{removed} X_j‖² grows least.

    Adding unit j to the removed set with indicator t changes the energy by 2 (Gt)_j + G_jj.

    Args:
        gram: XᵀX of the contributions of units: [size, size].
        removed: How many leave.
    Returns:
        Mask [size].
    """
    stays = torch.ones(len(gram), dtype=torch.bool)
    with_removed = torch.zeros(len(gram), dtype=gram.dtype)  # Gt
    for _ in range(removed):
        change = torch.where(stays, 2 * with_removed + gram.diagonal(), torch.inf)
        worst = int(change.argmin())
        stays[worst] = False
        with_removed += gram[:, worst]
    return stays


def matching_pursuit(gram: Tensor, kept: int) -> Tensor:
    """Return which units stay when orthogonal matching pursuit of y = Σ_j X_j picks `kept` of them.

    Each time the unit that explains most of the residual alone, (X_jᵀr)² / (X_jᵀX_j), comes in, and r becomes
    what least squares on all chosen units leaves. Since Xᵀy = G·1, the Gram matrix is all that is needed;
    rows of `directions` are Xᵀq for the orthonormal directions q that the chosen units span.

    Args:
        gram: XᵀX of the contributions of units: [size, size].
        kept: How many stay.
    Returns:
        Mask [size].
    """
    energy = gram.diagonal()
    tiny = RIDGE * float(energy.mean())
    stays = torch.zeros(len(gram), dtype=torch.bool)
    residual = gram.sum(1)  # Xᵀr
    directions = gram.new_zeros(kept, len(gram))
    for number in range(kept):
        explained = torch.where(energy > 0, residual.square() / energy.clamp_min(1e-300), -1.0)
        best = int(torch.where(stays, -2.0, explained).argmax())
        stays[best] = True
        direction = gram[best] - directions[:number].T @ directions[:number, best]
        if direction[best] > tiny:  # else it lies in the span of those chosen before
            directions[number] = direction / direction[best].sqrt()
            residual = residual - directions[number] * (residual[best] / direction[best].sqrt())
    return stays


def least_squares_scale(gram: Tensor, stays: Tensor) -> Tensor:
    """Return the factors w of the units that stay which minimise ‖X·1 − X_S w‖², 0 for the others: [size].

    w = 1 + (G_SS + λ)⁻¹ G_SR·1 with R what leaves: the ridge λ pulls towards 1, not 0, so that w = 1 where
    nothing leaves or a unit is dead.
    """
    factors = stays.to(gram)
    inner = gram[stays][:, stays]
    ridge = RIDGE * inner.diagonal().mean().clamp_min(1e-30)
    left = inner + ridge * torch.eye(len(inner), dtype=gram.dtype)
    factors[stays] += torch.linalg.solve(left, gram[stays][:, ~stays].sum(1))
    return factors


@dataclass(frozen=True)
class ThiNet(Allocating, TrainingMethod):
    """Group by group, forward: units are chosen by what reads them, readers are rescaled, training goes on.

    Attributes:
        allocator: The source prunes every layer at one rate.

    References:
        Luo, Wu, Lin, "ThiNet: A Filter Level Pruning Method for Deep Neural Network Compression", ICCV 2017,
        algorithm 1 and eq. (6) (variant "iccv"); Luo et al., "ThiNet: Pruning CNN Filters for a Thinner Net",
        TPAMI 2019 (variant "tpami"); the authors' code for what the papers leave open.
    Differs from the source:
        Contributions are seen as their Gram matrix, summed over all outputs at the drawn positions, not at
        ten outputs per image. All prunable groups are pruned, also the trunks that residual blocks add to,
        which the source leaves whole (scope does so here). Where several layers read a group, their rows
        are stacked to choose, and each is rescaled for itself. The least squares have a small ridge. Layers
        come at equal distances in the first part of training instead of after an epoch each, and widths are
        those of a budget, shared out before the first layer by the norms of the weights.
    """

    allocator: str = "uniform"
    variant: str = option("tpami", OneOf("iccv", "tpami"), "greedy in what leaves (iccv) or stays (tpami)")
    until: float = option(0.7, Number(0.01, 1), "part of training after which nothing more leaves")
    batches: int = option(8, Number(1, integer=True), "use at most this many batches for each group")
    positions: int = option(64, Number(1, integer=True), "output positions per image that are looked at")

    def callback(self, problem: Problem) -> MethodCallback:
        """Return what chooses, rescales and silences."""
        return ThiNetCallback(self, problem)


class ThiNetCallback(FixedWidths):
    """Remembers the widths, and which units stay in the groups whose turn has come."""

    def __init__(self, method: ThiNet, problem: Problem) -> None:
        super().__init__(problem, method.allocating())
        self.method = method
        if problem.data is None:
            raise InputError("method 'thinet' learns from data; give data=[(inputs, targets), …]")
        self.layers = find_readers(problem.model, self.groups, method="thinet")

    def begin(self, context: StepContext) -> None:
        """Share the budget out; no group has had its turn."""
        super().begin(context)
        self.memory["stays"] = {}

    def scores(self, context: StepContext) -> dict[str, Tensor]:
        """Return L2 norms."""
        tensors = live_tensors(context.model)
        return {g.id: unit_norms(tensors, g).sqrt() for g in self.groups}

    def before_step(self, context: StepContext) -> None:
        """Prune the groups whose turn has come."""
        super().before_step(context)
        turns = self._turns()
        span = self.method.until * context.total_steps
        for number, name in enumerate(turns):
            if context.step >= int(number * span / len(turns)) and name not in self.memory["stays"]:
                self._prune(context, name)

    def after_step(self, context: StepContext) -> None:
        """Keep silent what is gone."""
        self._silence(context)

    def plan(self, context: StepContext) -> Plan:
        """Return the plan that removes what is gone; groups that training was too short for come now."""
        for name in self._turns():
            if name not in self.memory["stays"]:
                self._prune(context, name)
        self._silence(context)
        return self.plan_with({name: stays.numpy() for name, stays in self.memory["stays"].items()})

    def _turns(self) -> list[str]:
        """Return the groups that lose units, in the order in which the network makes their channels."""
        kept = self.decided.keep
        return [g.id for g in self.groups if g.id in kept and not kept[g.id].all()]

    def _prune(self, context: StepContext, name: str) -> None:
        """Choose the units of a group that stay, and let its readers make up for the others."""
        group = self.problem.graph.groups[name]
        kept = self.decided.counts[name]
        layers = [layer for layer in self.layers if name in layer.units]
        assert self.problem.calibration is not None
        seen = moments(
            context.model,
            layers,
            self.problem.calibration,
            batches=self.method.batches,
            positions=self.method.positions,
            seed=self.problem.seed + context.step,
        )
        grams = {layer.tensor: contributions(layer, name, seen[layer.tensor].second) for layer in layers}
        whole = torch.stack(list(grams.values())).sum(0)
        stays = (
            backward_greedy(whole, group.size - kept)
            if self.method.variant == "iccv"
            else matching_pursuit(whole, kept)
        )
        tensors = live_tensors(context.model)
        for tensor, gram in grams.items():
            reading = [m for m in group.members if m.role == "in" and m.tensor == tensor]
            scale_(tensors, reading, least_squares_scale(gram, stays))
        self.memory["stays"][name] = stays

    def _silence(self, context: StepContext) -> None:
        keep = {name: stays.numpy() for name, stays in self.memory["stays"].items()}
        silence_(live_tensors(context.model), self.groups, keep)


ENTRY = ThiNet
