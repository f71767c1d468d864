"""Parts of a data set: in memory, held out for decisions, or sealed until the end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from billhook.data._batches import Augment, Batches, Loader
from billhook.data._order import Order, generator

log = logging.getLogger("billhook")


class Split(Protocol):
    """Samples that can be batched."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def loader(self, order: Order, *, augment: bool) -> Loader:
        """Return batches in `order`; with random changes if `augment`."""
        ...

    def take(self, samples: Tensor) -> Split:
        """Return the split that holds only `samples` (indices), in that order."""
        ...


@dataclass(frozen=True, eq=False)
class TensorSplit:
    """Images that fit into memory as bytes.

    Attributes:
        images: uint8 [count, channels, height, width].
        labels: int64 [count].
        mean, std: Normalisation per channel, of pixels between 0 and 1.
        augmentation: Random changes used for training.
    """

    images: Tensor
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augment

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.labels)

    def loader(self, order: Order, *, augment: bool) -> Batches:
        """Return batches in `order`; with random changes if `augment`."""
        changes = self.augmentation if augment else None
        return Batches(self.images, self.labels, order, mean=self.mean, std=self.std, augment=changes)

    def take(self, samples: Tensor) -> TensorSplit:
        """Return the split that holds only `samples` (indices), in that order."""
        return TensorSplit(self.images[samples], self.labels[samples], self.mean, self.std, self.augmentation)


class Sealed:
    """A split that is read only when opened, and counts how often: the test set is scored once.

    Args:
        name: Data set, for the log.
        read: Reads the split; called at the first opening.
    """

    def __init__(self, name: str, read: Callable[[], Split]) -> None:
        self.name = name
        self.uses = 0
        self._read = read
        self._split: Split | None = None

    def open(self) -> Split:
        """Return the split and count one use; a second use is logged as a warning."""
        if self._split is None:
            self._split = self._read()
        self.uses += 1
        if self.uses == 1:
            log.info("the test split of %s is opened", self.name)
        else:
            log.warning(
                "the test split of %s is used for the %d. time; decisions belong to the validation split",
                self.name,
                self.uses,
            )
        return self._split


def hold_out(labels: Tensor, fraction: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return indices of (the rest, a held-out part with the same share of every class).

    Both are in a random order that depends on `seed` alone, so the first n of the held-out part are
    themselves a fair sample. A class with a single sample stays in the rest.

    Args:
        labels: Class numbers, int64 [count].
        fraction: Share to hold out, between 0 and 1; rounded per class.
        seed: Same seed, same parts.
    """
    shuffled = torch.randperm(len(labels), generator=generator(seed))
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    held = torch.zeros(len(labels), dtype=torch.bool)
    for members in torch.split(by_class, torch.bincount(labels).tolist()):
        count = min(round(fraction * len(members)), len(members) - 1)
        held[members[: max(count, 0)]] = True
    return shuffled[~held[shuffled]], shuffled[held[shuffled]]
