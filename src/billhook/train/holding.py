"""A callback that keeps what a plan's patterns demand while a network is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from billhook.graph.structure import Structure
from billhook.sparse.holding import Held
from billhook.train.callbacks import Callback, StepContext


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
        self._held.momentum_(context.optimizer)
        self._held.weights_()

    def finish(self, context: StepContext) -> None:
        """Hold the weights once more: averaged ones also remember what was before the first step."""
        self._of(context).weights_()

    def state_dict(self) -> dict[str, Any]:
        """Return the anchors that do not follow from the structures: signs."""
        anchors = {} if self._held is None else {n: self._held.anchors[n] for n in self._held.signed}
        return {"anchors": anchors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the anchors of `state`."""
        self._anchors = dict(state["anchors"])

    def _of(self, context: StepContext) -> Held:
        if self._held is None or self._model is not context.model:
            # Resumed: signs as they were when training began. Another network has its own.
            anchors = self._anchors if self._model is None else {}
            self._held, self._model = Held(context.model, self.structures, anchors), context.model
        return self._held
