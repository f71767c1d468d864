"""Training a PruningNet: every step in other widths, drawn at random."""

from __future__ import annotations

import logging
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np

from billhook.graph.storage import load_tensors, read_tensors, write_tensors
from billhook.search.costs import SearchCosts
from billhook.search.hypernet.network import PruningNet
from billhook.train import Callback, FitConfig, StepContext, fit
from billhook.train.job import Loss

FILE = "pruning-net.safetensors"
_LOG = logging.getLogger("billhook")


class DrawWidths(Callback):
    """Gives a `PruningNet` other widths before every step.

    The draw depends on the seed and the step alone, so that a resumed run draws what the interrupted one
    would have drawn.

    Args:
        seed: Of the draws.
        costs: Random widths are made to use the budget of these costs up; None: every value of every gene is
            as likely.
    """

    def __init__(self, seed: int, costs: SearchCosts | None = None) -> None:
        self.seed, self._costs = seed, costs

    def before_step(self, context: StepContext) -> None:
        """Draw."""
        assert isinstance(context.model, PruningNet)
        rng = np.random.default_rng((self.seed, context.step))
        row = context.model.space.random(rng, 1)[0]
        context.model.row = row if self._costs is None else self._costs.fitted(row, rng)


def train_widths(
    network: PruningNet,
    batches: Any,
    config: FitConfig,
    folder: Path,
    *,
    fit_to: SearchCosts | None = None,
    loss: Loss | None = None,
    progress: bool = False,
) -> None:
    """Train a PruningNet in place, or read it if it has been trained in `folder` before.

    A run that was interrupted goes on from its last checkpoint, which is at most a minute old, and ends with
    the same weights as one that was not. The trained network stays in `folder` as one safetensors file.

    Args:
        network: What is trained.
        batches: Training batches; see `fit`.
        config: Length, learning rate, seed, …
        folder: Of this network and these settings alone.
        fit_to: Train in widths that use the budget of these costs up; None: in all.
        loss: Scalar loss of (outputs, targets); None: cross-entropy with label smoothing.
        progress: Show a bar.
    Raises:
        DivergedError: if the loss becomes NaN or infinite. StorageError: if a file in `folder` is broken.
    References:
        Liu et al., "MetaPruning", ICCV 2019, section 3.1 (stochastic training). arXiv:1903.10258.
    Differs from the source:
        It trains in all widths alike, most of which no budget allows and no search asks for.
    """
    path, checkpoints = folder / FILE, folder / "training"
    if path.exists():
        load_tensors(network, read_tensors(path), str(path))
        rmtree(checkpoints, ignore_errors=True)
        return
    told = network.factorised
    if told:
        more = " …" if len(told) > 6 else ""
        _LOG.info("%d generated weights are factorised: %s%s", len(told), ", ".join(told[:6]), more)
    fit(
        network,
        batches,
        config=config,
        loss=loss,
        callbacks=[DrawWidths(config.seed, fit_to)],
        checkpoint_dir=checkpoints,
        resume=True,
        progress=progress,
    )
    network.row = network.space.highest
    write_tensors(path, network)
    rmtree(checkpoints, ignore_errors=True)  # another process may have been at it as well
