"""The first images of a data set, held in memory: every candidate of a search is judged on the same."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from billhook.errors import InputError
from billhook.train.batches import as_batches, batch_size, unpack


def first_images(data: Any, images: int) -> list[tuple[Any, Any]]:
    """Return batches (inputs, targets) with the first `images` samples, or all if there are fewer.

    Raises:
        InputError: if there are none.
    """
    taken: list[tuple[Any, Any]] = []
    left = images
    for batch in as_batches(data).epoch(0):
        inputs, targets = unpack(batch)
        size = batch_size(inputs)
        if size > left:
            inputs, targets = (_first(part, size, left) for part in (inputs, targets))
        taken.append((inputs, targets))
        left -= min(size, left)
        if not left:
            break
    if not taken:
        raise InputError("there is nothing to judge candidates on: the validation data has no batches")
    return taken


def _first(part: Any, size: int, count: int) -> Any:
    """Return the first samples of everything that has as many as the batch."""
    return pytree.tree_map_only(Tensor, lambda t: t[:count] if t.dim() and t.shape[0] == size else t, part)
