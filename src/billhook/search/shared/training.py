"""Training of shared weights for one generation, and what comes out of it: an objective."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from billhook.search.objective import Judge
from billhook.search.problem import SearchProblem
from billhook.search.shared.fresh import fresh
from billhook.search.shared.network import Sampling, SharedNetwork
from billhook.search.shared.objective import SharedWeights
from billhook.search.space import Genes, Space
from billhook.train import FitConfig, as_batches, fit
from billhook.train.batches import unpack
from billhook.train.placement import device_of, to_device
from billhook.train.rng import derive_seed

_SLICES, _MASKS = 1, 2  # phases, in seeds and in names of folders


@dataclass(frozen=True)
class Training:
    """How shared weights are trained.

    Attributes:
        slices: Of the first phase, in which candidates are dense slices.
        masks: Of the second, in which they are sparse too; None, or no densities in the space: there is none.
        trained: Begin with the trained network instead of an untrained one.
        settling: Training batches from which each candidate's batch norms are measured.
    """

    slices: FitConfig
    masks: FitConfig | None
    trained: bool = False
    settling: int = 10


def shared_weights(
    problem: SearchProblem,
    space: Space,
    rows: Sequence[Genes],
    training: Training,
    *,
    generation: int,
    folder: Path,
) -> SharedWeights:
    """Return the objective of a generation: trains its shared network, which begins anew in each.

    Every step trains one candidate, drawn at random, on one batch. What is drawn follows from the problem's
    seed and the number of the generation. An interrupted training goes on where its last checkpoint was.

    Args:
        problem: Its model says what the network is; its data train.
        space: Candidates; see `first_channels`.
        rows: All candidates that will be compared with each other.
        training: How long, and how.
        generation: Its number.
        folder: Where checkpoints go; those of other generations are removed.
    Raises:
        InputError: without data.
        DivergedError: if the loss becomes NaN or infinite; names the step and the rate.
        MissingExtraError: if Lightning Fabric is not installed.
    References:
        Zhao et al., "Joint Channel and Weight Pruning for Model Acceleration on Mobile Devices", 2021,
        section 3.3. arXiv:2110.08013.
    Differs from the source:
        The masks of the last step are not those of the evaluation, which makes new ones. Any network.
    """
    seed = derive_seed(problem.seed, generation)
    model = copy.deepcopy(problem.model) if training.trained else fresh(problem.model, seed)
    for parameter in model.parameters():
        parameter.requires_grad_()
    network = SharedNetwork(model, space, rows)
    own = folder / f"generation_{generation}_{_digest(space, rows, training, seed)}"
    for old in folder.glob("generation_*"):
        if old != own:
            shutil.rmtree(old, ignore_errors=True)
    phases = {_SLICES: training.slices, _MASKS: training.masks if space.layers else None}
    for phase, config in phases.items():
        if config is None:
            continue
        network.masked = phase == _MASKS
        fit(
            network,
            problem.data,
            config=replace(config, seed=derive_seed(seed, phase)),
            loss=problem.loss,
            callbacks=[Sampling(derive_seed(seed, phase, 1))],
            checkpoint_dir=own / str(phase),
            resume=True,
            progress=problem.progress,
        )
    tensors = {name: tensor.detach().clone() for name, tensor in network.tensors().items()}
    batches = islice(as_batches(problem.data, problem.seed).epoch(0), training.settling)
    settling = [to_device(unpack(batch)[0], device_of(problem.model)) for batch in batches]
    judge = Judge(problem.judged_on, problem.loss, problem.model)
    return SharedWeights(generation_key(generation), space, tensors, settling, judge)


def generation_key(generation: int) -> str:
    """Return what results of a generation are known by: those of two generations cannot be compared."""
    return f"shared, generation {generation}"


def first_channels(space: Space) -> Space:
    """Return the space with the same genes in which the first units of every group stay.

    Weights that nobody has trained are all alike, so the order does not matter; slices from the beginning are
    views, without copies.
    """
    first = Space(
        space.graph,
        {g.id: [round(v) for v in gene.values] for g, gene in zip(space.groups, space.genes, strict=False)},
        {g.id: np.arange(g.size) for g in space.groups},
        {g.target: g.values for g in space.genes if g.kind == "density"},
        space.patterns,
        space.whole,
    )
    return first if space.model is None else first.of(space.model)


def _digest(space: Space, rows: Sequence[Genes], training: Training, seed: int) -> str:
    """Return what tells the checkpoints of two trainings apart."""
    facts = [space.signature, np.stack(rows).tolist(), seed, repr(training)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
