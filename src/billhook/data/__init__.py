"""Data sets by name, as batches of normalised tensors: `load("fashion-mnist").training(128)`.

Decisions (which channels leave, when to stop) use `validation`, a part held out of the training
set; `test` is sealed, read only when opened, and counts how often that happens.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from billhook.data._batches import Augment, Batches, Loader
from billhook.data._dataset import Dataset
from billhook.data._order import Order
from billhook.data._sources import DataOptions
from billhook.data._splits import Sealed, Split, TensorSplit, hold_out
from billhook.registry import Registry

__all__ = [
    "Augment",
    "Batches",
    "DataOptions",
    "Dataset",
    "Loader",
    "Order",
    "Sealed",
    "Split",
    "TensorSplit",
    "datasets",
    "hold_out",
    "load",
]

datasets: Registry[Callable[[DataOptions], Dataset]] = Registry("data set", "billhook.data", dashes=True)


def load(
    name: str,
    data_dir: Path | str | None = None,
    *,
    fetch: bool = True,
    image_size: int = 224,
    workers: int = 0,
) -> Dataset:
    """Return the data set called `name`.

    Args:
        name: "digits", "fashion-mnist", "cifar10", "cifar100" or "image-folder".
        data_dir: Folder that holds the files; without it the usual places are searched.
        fetch: Allow a download into the user's cache when a data set that can be fetched is not found.
        image_size: Height and width of the crops of "image-folder"; others have their own size.
        workers: Loader processes of "image-folder"; the others need none.
    Raises:
        NameNotFoundError: if no data set has that name.
        DataError: if files are missing or broken; says which and what to do.
        MissingExtraError: if the data set needs a library that is not installed.
    """
    folder = None if data_dir is None else Path(data_dir).expanduser()
    return datasets.get(name)(DataOptions(folder, fetch, image_size, workers))
