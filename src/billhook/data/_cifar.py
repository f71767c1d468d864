"""CIFAR-10 and CIFAR-100 in the layout of their "python version" archives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from billhook.data._batches import Augment
from billhook.data._dataset import Dataset, tensor_dataset
from billhook.data._pickles import read_pickle
from billhook.data._sources import ENVIRONMENT_VARIABLE, DataOptions, roots
from billhook.errors import DataError

_PIXELS = 3 * 32 * 32
_MAX_IMAGES = 50_000


@dataclass(frozen=True)
class CifarLayout:
    """What differs between the two.

    Attributes:
        name: Key in the registry.
        folder: Name of the unpacked archive.
        archive: Name of the archive.
        train, test: File names.
        labels: Key of the labels in those files.
        meta: (file, key) of the class names.
        classes: Number of classes.
        mean, std: Of the training pixels between 0 and 1.
    """

    name: str
    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    labels: str
    meta: tuple[str, str]
    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def load_cifar(layout: CifarLayout, options: DataOptions) -> Dataset:
    """Return the data set: nine tenths of the training files to train on, one tenth for validation."""
    folder = _find_folder(layout, options)
    parts = [_read(folder / file, layout) for file in layout.train]
    return tensor_dataset(
        layout.name,
        torch.cat([images for images, _ in parts]),
        torch.cat([labels for _, labels in parts]),
        lambda: _read(folder / layout.test, layout),
        classes=_class_names(folder, layout),
        mean=layout.mean,
        std=layout.std,
        augmentation=Augment(flip=True, crop=4),
        held_out=0.1,
    )


def _find_folder(layout: CifarLayout, options: DataOptions) -> Path:
    searched = [folder for root in roots(options) for folder in (root, root / layout.folder)]
    for folder in searched:
        if (folder / layout.train[0]).is_file() and (folder / layout.test).is_file():
            return folder
    raise DataError(
        f"{layout.name} was not found. Unpack {layout.archive} and name the folder that holds "
        f"{layout.folder} with --data-dir or the environment variable {ENVIRONMENT_VARIABLE}.\n"
        f"Searched: {', '.join(str(folder) for folder in searched)}"
    )


def _read(path: Path, layout: CifarLayout) -> tuple[Tensor, Tensor]:
    if not path.is_file():
        raise DataError(f"{path} is missing; unpack {layout.archive} again")
    content = read_pickle(path)
    images, labels = content.get("data"), content.get(layout.labels)
    if not isinstance(images, np.ndarray) or images.ndim != 2 or images.shape[1] != _PIXELS:
        raise DataError(f"{path} has no 'data' of {_PIXELS} bytes per image; unpack {layout.archive} again")
    count = len(images)
    if not 1 <= count <= _MAX_IMAGES:
        raise DataError(
            f"{path} holds {count:,} images, not 1 to {_MAX_IMAGES:,}; unpack {layout.archive} again"
        )
    if not isinstance(labels, list) or len(labels) != count:
        raise DataError(f"{path} has no list {layout.labels!r} with a label per image")
    if not all(isinstance(label, int) and 0 <= label < layout.classes for label in labels):
        raise DataError(f"{path} has labels outside 0 to {layout.classes - 1}")
    return torch.tensor(images).reshape(count, 3, 32, 32), torch.tensor(labels, dtype=torch.int64)


def _class_names(folder: Path, layout: CifarLayout) -> tuple[str, ...]:
    file, key = layout.meta
    names = read_pickle(folder / file).get(key) if (folder / file).is_file() else None
    if not isinstance(names, list) or len(names) != layout.classes:
        return tuple(str(number) for number in range(layout.classes))
    return tuple(str(name) for name in names)
