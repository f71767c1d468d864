"""Which samples come in which step of which epoch: a pure function of (seed, epoch, step)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from billhook.errors import InputError


@dataclass(frozen=True)
class Order:
    """The order of the samples of a split.

    Attributes:
        count: Number of samples.
        batch_size: Samples per step.
        seed: Shuffle by this seed, differently in each epoch; None keeps the order of the split.
        drop_last: Leave out a last batch that is not full (batch norm cannot train on one sample).
    """

    count: int
    batch_size: int
    seed: int | None = None
    drop_last: bool = False

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError("a split without samples has no batches; check the data set")
        if self.batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {self.batch_size}")
        if self.seed is not None and self.seed < 0:
            raise InputError(f"seed must not be negative, not {self.seed}")

    def __len__(self) -> int:
        """Return the number of steps of an epoch; at least one."""
        full, rest = divmod(self.count, self.batch_size)
        return max(1, full) if self.drop_last else full + (rest > 0)

    def steps(self, epoch: int, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        """Yield (step, indices of its samples) from step `start` to the end of `epoch`."""
        if self.seed is None:
            samples = torch.arange(self.count)
        else:
            samples = torch.randperm(self.count, generator=generator(self.seed, epoch))
        for step in range(start, len(self)):
            yield step, samples[step * self.batch_size : (step + 1) * self.batch_size]


def generator(*key: int) -> torch.Generator:
    """Return a generator whose numbers depend on all of `key`, well mixed (seed 1, epoch 2 is not 2, 1)."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator().manual_seed(seed)
