"""The record that every data set becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from billhook.data._batches import Augment, Loader
from billhook.data._order import Order, generator
from billhook.data._splits import Sealed, Split, TensorSplit, hold_out
from billhook.errors import InputError

VALIDATION_SEED = 0  # never changes: a network trained last year must not have seen today's validation part


@dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled image data set.

    Attributes:
        name: Key in the registry.
        train: Samples to train on.
        validation: Samples held out of the training set; all decisions use these.
        test: Sealed; opened once, for the final score.
        classes: Names of the classes; their positions are the labels.
        input_shape: Channels, height, width of one input.
        mean, std: Normalisation per channel, of pixels between 0 and 1.
        preprocessing: Plain data that says how an image becomes an input, for an artefact's manifest.
    """

    name: str
    train: Split
    validation: Split
    test: Sealed
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    preprocessing: Mapping[str, Any]

    def training(self, batch_size: int, *, seed: int = 0, augment: bool = True) -> Loader:
        """Return shuffled batches of the training part, each full."""
        return self.train.loader(Order(len(self.train), batch_size, seed, drop_last=True), augment=augment)

    def evaluation(
        self,
        part: Literal["train", "validation", "test"] = "validation",
        batch_size: int = 500,
        *,
        limit: int | None = None,
    ) -> Loader:
        """Return all samples of `part` (or its first `limit`), in order and without random changes.

        Asking for "test" opens the sealed split and counts as a use.

        Raises:
            InputError: if `part` is no part or `limit` is not positive.
        """
        if part not in ("train", "validation", "test"):
            raise InputError(f"part must be 'train', 'validation' or 'test', not {part!r}")
        if limit is not None and limit < 1:
            raise InputError(f"limit must be at least 1, not {limit}")
        splits = {"train": self.train, "validation": self.validation}
        split = self.test.open() if part == "test" else splits[part]
        if limit is not None:
            split = split.take(torch.arange(min(limit, len(split))))
        return split.loader(Order(len(split), batch_size), augment=False)

    def calibration(self, count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return `count` random training samples as one batch of (inputs, targets), without changes.

        Raises:
            InputError: if the training part has fewer samples.
        """
        if not 1 <= count <= len(self.train):
            raise InputError(
                f"calibration needs between 1 and {len(self.train)} images of {self.name}, not {count}"
            )
        chosen = torch.randperm(len(self.train), generator=generator(seed))[:count]
        loader = self.train.take(chosen).loader(Order(count, count), augment=False)
        return next(iter(loader))


def tensor_dataset(
    name: str,
    images: Tensor,
    labels: Tensor,
    read_test: Callable[[], tuple[Tensor, Tensor]],
    *,
    classes: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    augmentation: Augment,
    held_out: float,
) -> Dataset:
    """Return the data set of in-memory `images` (uint8 NCHW), with a part held out for validation."""

    def split(images: Tensor, labels: Tensor) -> TensorSplit:
        return TensorSplit(images, labels, mean, std, augmentation)

    whole = split(images, labels)
    rest, held = hold_out(labels, held_out, VALIDATION_SEED)
    channels, height, width = images.shape[1:]
    return Dataset(
        name=name,
        train=whole.take(rest),
        validation=whole.take(held),
        test=Sealed(name, lambda: split(*read_test())),
        classes=classes,
        input_shape=(channels, height, width),
        mean=mean,
        std=std,
        preprocessing={
            "layout": "NCHW",
            "channels": "grey" if channels == 1 else "RGB",
            "size": [height, width],
            "scale": 1 / 255,
            "mean": list(mean),
            "std": list(std),
        },
    )
