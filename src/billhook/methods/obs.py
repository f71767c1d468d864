"""Optimal brain surgeon for whole units: the layers that read them make up for what leaves."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from billhook.criteria import Calibration
from billhook.errors import InputError
from billhook.methods._base import Method, Outcome, Problem
from billhook.methods._decide import decide, with_units
from billhook.methods._parts import Allocating
from billhook.options import Flag, Number, option
from billhook.registry import Info
from billhook.train import recalibrate_batchnorm
from billhook.train.reader_layers import ReaderLayer, find_readers
from billhook.train.reconstruction import Moments, damped, moments, refitted, taken

INFO = Info(
    "units whose loss the layers that read them make up for best, with the weights that do so",
    "Hassibi, Stork, NIPS 1992; Frantar et al., OBC, 2022; Kurtic et al., ZipLM, 2023",
    needs_data=True,
    notes="changes the weights of the layers that read what leaves; no training",
)


Reader = tuple[Tensor, Tensor, Tensor]  # W, H⁻¹, and the columns of each unit


def inverted(hessian: Tensor) -> Tensor:
    """Return H⁻¹ of every block."""
    inverse: Tensor = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    return inverse


def saliencies(matrix: Tensor, inverse: Tensor, columns: Tensor) -> Tensor:
    """Return ½ tr(W_g ([H⁻¹]_gg)⁻¹ W_gᵀ) for the columns g of each unit: [units].

    That is how much ½ tr(δW H δWᵀ) grows when the unit's columns become zero and all others adapt.

    Args:
        matrix: W, [blocks, outputs, columns].
        inverse: H⁻¹, [blocks, columns, columns].
        columns: Of each unit: [units, columns per unit].
    """
    inner = inverse[:, columns[:, :, None], columns[:, None, :]]
    mine = matrix[:, :, columns].permute(0, 2, 3, 1)  # [blocks, units, columns per unit, outputs]
    explained: Tensor = (mine * torch.linalg.solve(inner, mine)).sum((0, 2, 3))
    return explained / 2


def remove_(matrix: Tensor, inverse: Tensor, columns: Tensor) -> None:
    """Take columns g out of W and H, in place; what stays of W adapts.

    W ← W − W_g ([H⁻¹]_gg)⁻¹ [H⁻¹]_g,:, and H⁻¹ ← H⁻¹ − [H⁻¹]_:,g ([H⁻¹]_gg)⁻¹ [H⁻¹]_g,:, the inverse of H
    without g.
    """
    solved = torch.linalg.solve(inverse[:, columns][:, :, columns], inverse[:, columns])
    matrix.baddbmm_(matrix[:, :, columns], solved, alpha=-1)
    inverse.baddbmm_(inverse[:, :, columns], solved, alpha=-1)
    matrix[:, :, columns] = 0
    inverse[:, columns] = 0
    inverse[:, :, columns] = 0


def surgery(readers: Sequence[Reader], removed: int) -> Tensor:
    """Return which units stay when the least salient one leaves, again and again, and the others adapt.

    Args:
        readers: (W, H⁻¹, columns of each unit) of every layer that reads the units; W and H⁻¹ are changed.
        removed: How many leave.
    Returns:
        Mask [units].
    """
    stays = torch.ones(len(readers[0][2]), dtype=torch.bool)
    for _ in range(removed):
        left = stays.nonzero().flatten()
        total = torch.stack([saliencies(w, h, columns[left]) for w, h, columns in readers]).sum(0)
        worst = left[int(total.argmin())]
        stays[worst] = False
        for w, h, columns in readers:
            remove_(w, h, columns[worst])
    return stays


@dataclass(frozen=True)
class Obs(Allocating, Method):
    """Units leave where the layers that read them can make up for it, and these layers do.

    A layer's Hessian is H = E[x xᵀ] over its inputs, that of the squared error of its outputs. One look at
    all units shares the budget out; then units leave one by one; then the weights of each reader are refitted
    to the outputs of the original network, in forward order, so that each also makes up for those before it.

    References:
        Hassibi, Stork, "Second Order Derivatives for Network Pruning: Optimal Brain Surgeon", NIPS 1992,
        eq. (5); Frantar, Singh, Alistarh, "Optimal Brain Compression", NeurIPS 2022, arXiv:2208.11580, for
        blocks of weights and layer-wise Hessians; Kurtic, Frantar, Alistarh, "ZipLM", NeurIPS 2023,
        arXiv:2302.04089, for structures.
    Differs from the source:
        A group may have several readers: each one's error counts relative to the energy of its outputs. H is
        damped, and weights are refitted with the same damping towards the given ones. The compensations of
        all removals are computed at once, as the least squares they end in; where a layer has a bias, it
        takes part. Units of a group are chosen with the statistics of the original network, as if other
        groups stayed whole; weights are refitted with those of the smaller one (ours). Batch-norm statistics
        are measured anew at the end.
    """

    batches: int = option(8, Number(1, integer=True), "use at most this many batches")
    positions: int = option(64, Number(1, integer=True), "output positions per image that are looked at")
    damping: float = option(0.01, Number(1e-8, 10), "added to H, as a fraction of the mean of its diagonal")
    sequential: bool = option(True, Flag(), "refit each layer to what the smaller network feeds it")
    recalibrate: bool = option(True, Flag(), "measure batch-norm statistics anew at the end")

    def run(self, problem: Problem) -> Outcome:
        """Return the plan, and a copy of the model whose readers are refitted."""
        if problem.calibration is None:
            raise InputError("method 'obs' learns from data; give data=[(inputs, targets), …]")
        layers = find_readers(problem.model, problem.groups, method="obs")
        given = taken(problem.calibration, self.batches, problem.seed)
        dense = self._moments(problem, problem.model, layers, given)
        readers = _readers(layers, dense, self.damping)
        once = {name: torch.stack([saliencies(*r) for r in found]).sum(0) for name, found in readers.items()}
        plan = decide(problem, once, self.allocating())
        keep = {name: surgery(readers[name], int((~stays).sum())) for name, stays in plan.keep.items()}
        model = copy.deepcopy(problem.model)
        self._refit(problem, model, [layer.on(model) for layer in layers], dense, given, keep)
        if self.recalibrate:
            recalibrate_batchnorm(model, given.batches, self.batches)
        return Outcome(with_units(problem, plan, {name: k.numpy() for name, k in keep.items()}), model)

    def _refit(
        self,
        problem: Problem,
        model: nn.Module,
        layers: Sequence[ReaderLayer],
        dense: Mapping[str, Moments],
        given: Calibration,
        keep: Mapping[str, Tensor],
    ) -> None:
        """Refit the readers of `model`, in the order in which it runs them."""
        by_name, changed = {layer.tensor: layer for layer in layers}, False
        for name, sums in dense.items():
            layer = by_name[name]
            gone, stale = layer.gone(keep), self.sequential and changed
            if not gone.any() and not stale:
                continue
            if stale:
                sums = self._moments(problem, model, [layer], given, problem.model)[name]
            second, cross = (t.double() / sums.rows for t in (sums.second, sums.cross))
            matrix = refitted(layer.matrix().double(), cross, second, gone.to(second.device), self.damping)
            layer.assign_(matrix)
            changed = True

    def _moments(
        self,
        problem: Problem,
        model: nn.Module,
        layers: Sequence[ReaderLayer],
        given: Calibration,
        teacher: nn.Module | None = None,
    ) -> dict[str, Moments]:
        settings = {"batches": self.batches, "positions": self.positions, "seed": problem.seed}
        return moments(model, layers, given, teacher=teacher, **settings)


def _readers(
    layers: Sequence[ReaderLayer], dense: Mapping[str, Moments], damping: float
) -> dict[str, list[Reader]]:
    """Return per group (W, H⁻¹, columns of each unit) of its readers; W is scaled to outputs of energy 1.

    Units of a group are chosen as if other groups stayed whole. Then a downdate of H⁻¹ needs the columns of
    that group only, and one inversion per layer is enough, however many groups it reads.
    """
    found: dict[str, list[Reader]] = {}
    for layer in layers:
        second = dense[layer.tensor].second.double() / dense[layer.tensor].rows
        matrix, inverse = layer.matrix().double(), inverted(damped(second, damping))
        matrix = matrix / ((matrix @ second) * matrix).sum().clamp_min(1e-12).sqrt()
        for group, columns in layer.units.items():
            at = columns.flatten().to(second.device)
            own = torch.arange(len(at), device=second.device).view(columns.shape)
            found.setdefault(group, []).append((matrix[:, :, at], inverse[:, at][:, :, at], own))
    return found


ENTRY = Obs
