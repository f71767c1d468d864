"""Your own images: one folder per class, as torchvision's ImageFolder and ImageNet have it."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from billhook.data._dataset import VALIDATION_SEED, Dataset
from billhook.data._image_files import EVALUATION_ZOOM, FileSplit, pillow
from billhook.data._sources import ENVIRONMENT_VARIABLE, DataOptions, roots
from billhook.data._splits import Sealed, hold_out
from billhook.errors import DataError, InputError, suggest
from billhook.registry import Info

INFO = Info(
    title="your own images: FOLDER/train/CLASS/*.jpg or FOLDER/CLASS/*.jpg",
    notes="FOLDER/test and FOLDER/val are used if present (val alone is the test set, as for ImageNet); "
    "a part that is missing is 10 % of the training images",
)

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm"})
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which pretrained networks expect


def load_image_folder(options: DataOptions) -> Dataset:
    """Return the images below the data folder; they are decoded, and checked, when they are used.

    Raises:
        DataError: if there is no folder, no class, a class without images, or an unknown class.
        InputError: if the image size is not positive.
    """
    size = options.image_size
    if size < 1 or options.workers < 0:
        raise InputError("image_size must be at least 1 and workers at least 0")
    pillow()  # fail now rather than at the first image
    root = _root(options)
    train_folder = root / "train" if (root / "train").is_dir() else root
    val_folder, test_folder = root / "val", root / "test"
    if not test_folder.is_dir():  # as for ImageNet, whose test labels are not public
        val_folder, test_folder = test_folder, val_folder
    if train_folder is root and (val_folder.is_dir() or test_folder.is_dir()):
        raise DataError(f"{root} has folders 'val' or 'test' but no 'train'; put the training images there")
    classes = _class_names(train_folder)

    train = _read(train_folder, classes, options)
    if test_folder.is_dir():
        test = Sealed("image-folder", lambda: _read(test_folder, classes, options))
    else:
        train, apart = _part(train, VALIDATION_SEED + 1)
        test = Sealed("image-folder", lambda: apart)
    if val_folder.is_dir():
        validation = _read(val_folder, classes, options)
    else:
        train, validation = _part(train, VALIDATION_SEED)
    return Dataset(
        name="image-folder",
        train=train,
        validation=validation,
        test=test,
        classes=classes,
        input_shape=(3, size, size),
        mean=MEAN,
        std=STD,
        preprocessing={
            "layout": "NCHW",
            "channels": "RGB",
            "resize_shorter_side": round(EVALUATION_ZOOM * size),
            "central_crop": [size, size],
            "interpolation": "bilinear",
            "scale": 1 / 255,
            "mean": list(MEAN),
            "std": list(STD),
        },
    )


def _root(options: DataOptions) -> Path:
    if options.data_dir is None and not os.environ.get(ENVIRONMENT_VARIABLE):
        raise DataError(f"image-folder needs a folder: name it with --data-dir or {ENVIRONMENT_VARIABLE}")
    return roots(options)[0]


def _class_names(folder: Path) -> tuple[str, ...]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
    if len(names) < 2:
        raise DataError(f"{folder} holds {len(names)} class folders; at least 2 are needed, one per class")
    return tuple(names)


def _read(folder: Path, classes: tuple[str, ...], options: DataOptions) -> FileSplit:
    files: list[Path] = []
    labels: list[int] = []
    for name in _class_names(folder):
        if name not in classes:
            raise DataError(f"{folder / name} is no class of the training images{suggest(name, classes)}")
        found = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in SUFFIXES)
        if not found:
            kinds = ", ".join(sorted(SUFFIXES))
            raise DataError(f"{folder / name} holds no images ({kinds}); add some or remove the folder")
        files += found
        labels += [classes.index(name)] * len(found)
    return FileSplit(tuple(files), torch.tensor(labels), options.image_size, MEAN, STD, options.workers)


def _part(split: FileSplit, seed: int) -> tuple[FileSplit, FileSplit]:
    """Return `split` without a tenth of every class, and that tenth."""
    rest, held = hold_out(split.labels, 0.1, seed)
    if not len(held):
        raise DataError(
            f"{split.files[0].parent.parent} has too few images to hold out a tenth; "
            "add images or provide the folders 'val' and 'test'"
        )
    return split.take(rest), split.take(held)


ENTRY = load_image_folder
