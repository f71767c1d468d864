"""What `fit` trains on: batches that know their number and can start in the middle of an epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from billhook.errors import InputError
from billhook.train.rng import derive_seed, preserved_rng, seed_rng

Batch = tuple[Any, Any]


@runtime_checkable
class Batches(Protocol):
    """Batches in an order that depends on the epoch only.

    `epoch(e, start=k)` gives what `epoch(e)` gives after its first k batches, and draws nothing from the
    global random generators for the skipped ones; on this rests the exact resume. With DDP every process
    takes each n-th batch, unless the object has an attribute `sharded` that is True.
    """

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return (inputs, targets) pairs; inputs are a tensor, a tuple or a dict of arguments."""
        ...


class IterableBatches:
    """Adapter for a list of batches or a `DataLoader`; its random order follows from `seed` and the epoch.

    A skipped batch costs its loading. Generators that belong to the loader or its sampler are seeded anew in
    every epoch, and `set_epoch` of a sampler is called.
    """

    def __init__(self, source: Any, seed: int) -> None:
        self.source = source
        self.seed = seed
        sampler = getattr(source, "sampler", None)
        self.sharded = isinstance(sampler, torch.utils.data.distributed.DistributedSampler)

    def __len__(self) -> int:
        return len(self.source)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of one epoch, from batch `start` on."""
        with preserved_rng():
            seed = derive_seed(self.seed, epoch)
            seed_rng(seed)
            for part in (self.source, *(getattr(self.source, n, None) for n in ("sampler", "batch_sampler"))):
                if hasattr(part, "set_epoch"):
                    part.set_epoch(epoch)
                if isinstance(generator := getattr(part, "generator", None), torch.Generator):
                    generator.manual_seed(seed)
            iterator = iter(self.source)
            # Samplers draw their order at the first batch, so this one is always drawn with the epoch's seed;
            # the augmentation of all later ones goes on with the generators of the run.
            first = list(islice(iterator, 1))
            if start:
                first = []
                deque(islice(iterator, start - 1), maxlen=0)
        yield from chain(first, iterator)


def as_batches(source: Any, seed: int = 0) -> Batches:
    """Return `source` if it is a `Batches`, else an adapter around it.

    Raises:
        InputError: if `source` has no length or can be read only once.
    """
    if isinstance(source, Batches):
        return source
    if not hasattr(source, "__iter__"):
        raise InputError(
            f"data of type {type(source).__name__} holds no batches; give a DataLoader or a list of "
            "(inputs, targets)"
        )
    try:
        length = len(source)
    except TypeError:
        raise InputError(
            f"batches of type {type(source).__name__} have no length; give a DataLoader of a data set with a "
            "length, a list of (inputs, targets), or an object with __len__ and epoch(epoch, start)"
        ) from None
    if length == 0:
        raise InputError("there are no batches; is the data set smaller than one batch with drop_last=True?")
    return IterableBatches(source, seed)


def unpack(batch: Any) -> Batch:
    """Return (inputs, targets); raises `InputError` for anything but a pair."""
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
    raise InputError(f"a batch must be a pair (inputs, targets), not a {type(batch).__name__}{size}")


def batch_size(inputs: Any) -> int:
    """Return the first dimension of the first tensor in `inputs`, 1 if there is none."""
    if isinstance(inputs, Tensor):
        return int(inputs.shape[0]) if inputs.dim() else 1
    parts = (
        inputs.values() if isinstance(inputs, dict) else inputs if isinstance(inputs, (tuple, list)) else ()
    )
    return next((batch_size(p) for p in parts if isinstance(p, Tensor)), 1)
