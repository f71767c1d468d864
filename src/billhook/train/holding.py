"""What keeps a plan's patterns while a network is trained: a callback for `fit`, a block for other loops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from billhook.errors import InputError
from billhook.graph.structure import Structure
from billhook.sparse.holding import Held
from billhook.train.callbacks import Callback, StepContext, around_steps


class HoldPatterns(Callback):
    """Keeps weights, gradients and momentum in their structures, from the first step on.

        fit(network, loader, callbacks=[HoldPatterns(plan.patterns)])

    Args:
        structures: By the name of a weight.
    """

    def __init__(self, structures: Mapping[str, Structure]) -> None:
        self.structures = dict(structures)
        self._held: Held | None = None
        self._model: nn.Module | None = None
        self._anchors: dict[str, Any] = {}

    def before_step(self, context: StepContext) -> None:
        """Give the network its structures, before the first step."""
        self._of(context)

    def after_backward(self, context: StepContext) -> None:
        """Hold the gradients."""
        assert self._held is not None
        self._held.gradients_()

    def after_step(self, context: StepContext) -> None:
        """Hold momentum and weights."""
        assert self._held is not None
        self._held.step_(context.optimizer)

    def finish(self, context: StepContext) -> None:
        """Hold the weights once more: averaged ones also remember what was before the first step."""
        self._of(context).weights_()

    def state_dict(self) -> dict[str, Any]:
        """Return the anchors that do not follow from the structures: signs."""
        return {"anchors": {} if self._held is None else self._held.signs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the anchors of `state`."""
        self._anchors = dict(state["anchors"])

    def _of(self, context: StepContext) -> Held:
        if self._held is None or self._model is not context.model:
            # Resumed: signs as they were when training began. Another network has its own.
            anchors = self._anchors if self._model is None else {}
            self._held, self._model = Held(context.model, self.structures, anchors), context.model
        return self._held


@contextmanager
def holding(
    model: nn.Module, optimizer: torch.optim.Optimizer, structures: Mapping[str, Structure]
) -> Iterator[Held]:
    """Hold structures in a training loop of your own: around every step of the optimiser inside the block.

        with holding(network, optimizer, plan.patterns):
            for inputs, targets in loader: ...

    Works with the optimisers of PyTorch that make their steps from the gradients of the moment, with or
    without a closure.

    Raises:
        InputError: for L-BFGS, whose steps come from a history of gradients that nobody can hold.
        PlanError: if a structure does not fit the network.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise InputError("L-BFGS cannot hold patterns: it remembers all weights in one; take SGD or AdamW")
    held = Held(model, structures)
    held.momentum_(optimizer)
    with around_steps(optimizer, held.gradients_, lambda: held.step_(optimizer)):
        yield held
