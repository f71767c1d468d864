"""Exponential moving average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from billhook.train.weights import Weights, copy_of, live


def warmed_decay(decay: float, updates: int) -> float:
    """Return the decay after `updates` updates: small at first, so that a short run forgets its start."""
    return min(decay, (1 + updates) / (10 + updates))


@torch.no_grad()
def average_(average: Weights, current: Weights, decay: float) -> None:
    """Move `average` towards `current` in place; integers are copied.

    References:
        Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", 1992.
    """
    floats = [name for name, tensor in average.items() if tensor.is_floating_point()]
    if floats:
        update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        update([average[n] for n in floats], [current[n] for n in floats], None)
    for name in average.keys() - set(floats):
        average[name].copy_(current[name])


class Ema:
    """Averaged copy of a model's parameters and buffers; costs one more copy of the weights."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = copy_of(model)

    def update(self, model: nn.Module) -> None:
        """Take the model's present weights into the average."""
        average_(self.weights, live(model), warmed_decay(self.decay, self.updates))
        self.updates += 1

    def state_dict(self) -> dict[str, int | dict[str, Tensor]]:
        """Return what `load_state_dict` needs to go on."""
        return {"updates": self.updates, "weights": dict(self.weights)}

    def load_state_dict(self, state: dict[str, int | dict[str, Tensor]]) -> None:
        """Go on where `state` was taken."""
        updates, weights = state["updates"], state["weights"]
        assert isinstance(updates, int)
        assert isinstance(weights, dict)
        self.updates = updates
        for name, tensor in self.weights.items():
            tensor.copy_(weights[name])
