"""Training that blows up: noticed within some steps, undone, and explained."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from billhook.train.weights import all_finite, copy_of, write


class GoodWeights:
    """The last weights at which loss and weights were finite; costs one more copy of the weights."""

    def __init__(self, model: nn.Module, step: int) -> None:
        self.step = step
        self._weights = copy_of(model)

    def keep(self, model: nn.Module, step: int) -> None:
        """Remember the present weights if all of them are finite."""
        if all_finite(model):
            self._weights, self.step = copy_of(model), step

    def restore(self, model: nn.Module) -> None:
        """Put the remembered weights back."""
        write(model, self._weights)


class LossWindow:
    """The losses of the last steps, kept on the device and read together.

    Reading each one when it is made would stop a GPU at every step.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._losses = torch.zeros(size, device=device)
        self._count = 0

    @property
    def full(self) -> bool:
        """True if there is no room for another loss."""
        return self._count == len(self._losses)

    def add(self, loss: Tensor) -> None:
        """Keep a loss."""
        self._losses[self._count].copy_(loss)
        self._count += 1

    def read(self) -> list[float]:
        """Return the losses that were kept, oldest first, and forget them."""
        losses: list[float] = self._losses[: self._count].tolist()
        self._count = 0
        return losses


def first_bad(losses: list[float]) -> int | None:
    """Return the index of the first loss that is NaN or infinite, None if all are finite."""
    return next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
