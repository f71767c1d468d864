"""Image files as a split: decoded when needed, by `torch.utils.data.DataLoader`."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from torch.utils.data import Dataset as TorchDataset

from billhook.data._batches import Batch, Loader
from billhook.data._order import Order, generator
from billhook.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 64 * 2**20  # of one image; a small file can claim to be far larger
EVALUATION_ZOOM = 256 / 224  # the shorter side, relative to the central crop


@dataclass(frozen=True, eq=False)
class FileSplit:
    """Image files with labels.

    Attributes:
        files: Paths of the images.
        labels: Class numbers, int64 [count].
        size: Height and width of an input.
        mean, std: Normalisation per channel, of pixels between 0 and 1.
        workers: Loader processes; 0 decodes in this process.
    """

    files: tuple[Path, ...]
    labels: Tensor
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    workers: int = 0

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.files)

    def loader(self, order: Order, *, augment: bool) -> Loader:
        """Return batches in `order`; with random crops and flips if `augment`."""
        return FileBatches(self, order, augment=augment)

    def take(self, samples: Tensor) -> FileSplit:
        """Return the split that holds only `samples` (indices), in that order."""
        files = tuple(self.files[sample] for sample in samples.tolist())
        return replace(self, files=files, labels=self.labels[samples])


class FileBatches(Loader):
    """Batches of a `FileSplit`; the random changes of an image depend on (seed, epoch, image) alone."""

    def __init__(self, split: FileSplit, order: Order, *, augment: bool) -> None:
        super().__init__(order)
        self.split, self.augment = split, augment

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch` from step `start` on."""
        rng = generator(self.order.seed or 0, epoch)
        seed = int(torch.randint(2**31, (), generator=rng))
        steps = [chosen.tolist() for _, chosen in self.order.steps(epoch, start)]
        loader = DataLoader(
            _Samples(self.split, seed if self.augment else None),
            batch_sampler=steps,
            num_workers=self.split.workers,
            collate_fn=_collate,
            generator=rng,  # otherwise the loader draws from the global generator
        )
        for batch in loader:
            if isinstance(batch, DataError):
                raise batch
            yield batch


class _Samples(TorchDataset[tuple[Tensor, int] | DataError]):
    """One decoded, changed and normalised image at a time; `seed` None means no random changes.

    A broken file is returned as an error, not raised: what a worker raises arrives wrapped in its
    traceback, and the loader then waits 5 seconds for each of its processes (torch 2.13).
    """

    def __init__(self, split: FileSplit, seed: int | None) -> None:
        self.split, self.seed = split, seed
        self.mean = torch.tensor(split.mean)[:, None, None]
        self.std = torch.tensor(split.std)[:, None, None]

    def __getitem__(self, index: int) -> tuple[Tensor, int] | DataError:
        try:
            image = read_image(self.split.files[index])
        except DataError as error:
            return error
        if self.seed is None:
            image = central_crop(image, self.split.size)
        else:
            image = random_crop(image, self.split.size, random.Random(self.seed * 2**32 + index))
        pixels = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1) / 255
        return (pixels - self.mean) / self.std, int(self.split.labels[index])


def _collate(samples: list[tuple[Tensor, int] | DataError]) -> Batch | DataError:
    broken = next((sample for sample in samples if isinstance(sample, DataError)), None)
    return tuple(default_collate(samples)) if broken is None else broken


def pillow() -> Any:
    """Return Pillow's `Image` module; raises `MissingExtraError` without Pillow."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("pillow", "images", "reading image files") from None
    return Image


def read_image(path: Path) -> Image:
    """Return the image in `path` as RGB.

    Raises:
        DataError: if the file is broken, is no image, or is larger than `MAX_PIXELS`; names the file.
    """
    module = pillow()
    try:
        with module.open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DataError(f"{path} is too large: {width}×{height} pixels; scale it down or remove it")
            decoded: Image = image.convert("RGB")
            return decoded
    except (OSError, ValueError, SyntaxError, EOFError, module.DecompressionBombError) as error:
        raise DataError(f"{path} is not a readable image ({error}); replace or remove it") from error


def central_crop(image: Image, size: int) -> Image:
    """Return the central square, after scaling the shorter side to `EVALUATION_ZOOM` times `size`."""
    scale = min(image.size) / (EVALUATION_ZOOM * size)
    half = scale * size / 2
    x, y = image.width / 2, image.height / 2
    return _resample(image, size, (x - half, y - half, x + half, y + half))


def random_crop(image: Image, size: int, rng: random.Random) -> Image:
    """Return a random part (8 to 100 % of the area, sides 3:4 to 4:3), scaled, mirrored half of the time."""
    width, height = image.size
    for _ in range(10):
        area, ratio = rng.uniform(0.08, 1) * width * height, rng.uniform(0.75, 4 / 3)
        w, h = (area * ratio) ** 0.5, (area / ratio) ** 0.5
        if w <= width and h <= height:
            break
    else:
        w = h = min(width, height)
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    part = _resample(image, size, (x, y, x + w, y + h))
    return part.transpose(pillow().Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part


def _resample(image: Image, size: int, box: Sequence[float]) -> Image:
    left, top, right, bottom = box
    inside = (max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height))
    return image.resize((size, size), pillow().Resampling.BILINEAR, box=inside)
