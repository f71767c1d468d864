"""What methods share that score single weights and do not train: rounds, schedules, one threshold for all.

They return a network whose weights have the structures; `fit(…, callbacks=[HoldPatterns(plan.patterns)])`
trains it. At initialisation is what they were made for; nothing keeps anybody from pruning a trained network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from billhook.criteria import Calibration
from billhook.errors import InputError
from billhook.graph.alive import holding
from billhook.graph.structure import Structure, impose_, sparsity_of
from billhook.methods._base import calibration_of
from billhook.methods.sparse._base import SparseOutcome, SparseProblem

Tensors = Mapping[str, Tensor]

SCHEDULES = ("exponential", "linear")


def keep_at(number: int, rounds: int, keep: float, schedule: str) -> float:
    """Return the fraction of weights that round `number` from 1 leaves, of `keep` after the last one.

    "exponential": keep^(t/T), the same fraction of what is left leaves each time. "linear": the same number.
    """
    done = number / rounds
    return float(keep**done if schedule == "exponential" else 1 - (1 - keep) * done)


def progress_of(number: int, rounds: int, keep: float, schedule: str = "exponential") -> float:
    """Return which part of what leaves in all has left after round `number`."""
    if number == rounds or keep >= 1:
        return 1.0
    return (1 - keep_at(number, rounds, keep, schedule)) / (1 - keep)


def keep_of(problem: SparseProblem) -> float:
    """Return the fraction of the weights in scope that shall stay."""
    if problem.sparsities is None:
        return 1 - problem.sparsity
    sizes = {name: prod(layer.shape) for name, layer in problem.layers.items()}
    zeros = sum(sizes[name] * problem.sparsities[name] for name in sizes)
    return 1 - zeros / sum(sizes.values())


def energies_of(scores: Tensors, masks: Tensors | None = None) -> dict[str, Tensor]:
    """Return scores as energies, which are at least 0: [shape of the score], float64, higher = keep.

    If a score is negative, the same number is added to all of them. That changes no order of single weights,
    nor of groups of the same size; of groups at the borders of a tensor, which are smaller, it makes less.
    All are above 0, except those of weights that are gone: these are exactly 0, and lose against every other.

    Args:
        scores: By tensor; comparable between tensors.
        masks: False where a weight is gone; None: all may stay.
    Raises:
        InputError: for a score that is NaN or infinite; names the tensor.
    """
    wide = {name: score.detach().double() for name, score in scores.items()}
    for name, score in wide.items():
        if not bool(torch.isfinite(score).all()):
            raise InputError(
                f"the scores of {name!r} are not finite: its weights or their gradients are NaN or too "
                "large; look for NaN in weights and data"
            )
    left = {n: s if masks is None else s[masks[n].to(s.device)] for n, s in wide.items()}
    lowest = min((float(s.min()) for s in left.values() if s.numel()), default=0.0)
    shifted = {name: score - min(0.0, lowest) for name, score in wide.items()}
    largest = max(float(s.max()) for s in shifted.values()) or 1.0
    energies = {name: (score / largest).clamp_min(_LEAST) for name, score in shifted.items()}
    return energies if masks is None else {n: e * masks[n].to(e) for n, e in energies.items()}


_LEAST = 1e-30  # of the largest; above 0 also as the mean over a block, in float32


def prune_in_rounds(
    problem: SparseProblem,
    score: Callable[[SparseProblem, int], Tensors],
    *,
    rounds: int = 1,
    schedule: str = "exponential",
    returning: bool = False,
) -> SparseOutcome:
    """Return the structures after `rounds` times scoring and letting weights leave.

    Zeros are shared out by one threshold for the scores of all tensors together, as in the sources, unless
    the problem says otherwise. At least one unit of every tensor stays.

    Args:
        problem: Its model is left untouched.
        score: Returns the scores of single weights, in the shape of the tensors, higher = keep; it is given
            the problem for a network whose pruned weights are zero, and the number of the round from 1.
        rounds: How often; the last one reaches the problem's sparsity.
        schedule: See `keep_at`.
        returning: Weights that have left compete again with those that stayed. Otherwise they stay away:
            exactly so where the units of a pattern share no weight.
    """
    problem = replace(problem, allocation=problem.allocation or "global", captured=problem.graph)
    model = copy.deepcopy(problem.model)
    dense = {name: w.detach() for name, w in problem.weights(problem.model).items()}
    keep = keep_of(problem)
    log: list[dict[str, float]] = []
    structures: dict[str, Structure] = {}
    for number in range(1, rounds + 1):
        sparse = {name: structure.project(dense[name]) for name, structure in structures.items()}
        with holding(model, sparse):
            scores = score(problem.on(model), number)
        masks = {name: s.mask for name, s in structures.items()}
        energies = energies_of(scores, None if returning or not masks else masks)
        structures = problem.by_energy(energies, progress_of(number, rounds, keep, schedule))
        log.append({"round": float(number), "sparsity": sparsity_of(structures.values())})
    impose_(problem.weights(model), structures)
    return SparseOutcome(structures, model, log=tuple(log))


def calibration_for(problem: SparseProblem, number: int, name: str) -> Calibration:
    """Return the data that round `number` from 1 learns from: of shuffled data, other batches in every round.

    Raises:
        InputError: for the sparse method `name` if there are none.
    """
    if problem.data is None:
        raise InputError(f"sparse method {name!r} learns from data; give data=[(inputs, targets), …]")
    return calibration_of(problem.data, problem.loss, problem.seed + number - 1)
