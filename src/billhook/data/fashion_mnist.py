"""Fashion-MNIST: found on this machine, or fetched once into the user's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from torch import Tensor

from billhook.data._batches import Augment
from billhook.data._dataset import Dataset, tensor_dataset
from billhook.data._fetch import fetch_debian, fetch_web
from billhook.data._idx import IdxFile
from billhook.data._sources import ENVIRONMENT_VARIABLE, DataOptions, cache_dir, roots
from billhook.errors import DataError
from billhook.registry import Info

INFO = Info(
    title="60,000 + 10,000 grey 28x28 images of clothes, 10 classes",
    source="Xiao et al., Fashion-MNIST, 2017, arXiv:1708.07747",
    notes="5,000 of the 60,000 are held out for validation",
)

DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"  # no https; contents are hashed

_TRAIN = (
    IdxFile(
        "train-images-idx3-ubyte",
        (60_000, 28, 28),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    IdxFile(
        "train-labels-idx1-ubyte",
        (60_000,),
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
)
_TEST = (
    IdxFile(
        "t10k-images-idx3-ubyte",
        (10_000, 28, 28),
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    IdxFile(
        "t10k-labels-idx1-ubyte",
        (10_000,),
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)
_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def load_fashion_mnist(options: DataOptions) -> Dataset:
    """Return Fashion-MNIST: 55,000 to train on, 5,000 for validation, 10,000 for the test."""
    folder = find_folder(options)
    images, labels = _read(_TRAIN, folder)
    return tensor_dataset(
        "fashion-mnist",
        images,
        labels,
        lambda: _read(_TEST, folder),
        classes=_CLASSES,
        mean=(0.2860,),
        std=(0.3530,),
        augmentation=Augment(flip=True),
        held_out=5_000 / 60_000,
    )


def find_folder(options: DataOptions) -> Path:
    """Return a folder that holds all four files; fetch them if no known folder does.

    Raises:
        DataError: if they are nowhere and cannot be fetched; lists every way to provide them.
    """
    searched = [
        folder
        for root in roots(options, DEBIAN_FOLDER)
        for folder in (root, root / "fashion-mnist", root / "FashionMNIST" / "raw")
    ]
    for folder in searched:
        if all(file.find(folder) for file in _TRAIN + _TEST):
            return folder
    failures = []
    if options.fetch:
        target = cache_dir() / "fashion-mnist"
        for fetch in _ways():
            try:
                target.mkdir(parents=True, exist_ok=True)
                fetch(target)
                return target
            except (DataError, OSError) as error:
                failures.append(str(error))
    raise DataError(_missing(searched, failures))


def _ways() -> Iterator[Callable[[Path], None]]:
    # Nothing gzips to more than it was, plus a little.
    wanted = {f"{file.name}.gz": file.size + 4096 for file in _TRAIN + _TEST}
    yield lambda target: fetch_debian(DEBIAN_PACKAGE, wanted, target)
    yield lambda target: fetch_web(MIRROR, wanted, target)


def _missing(searched: Sequence[Path], failures: Sequence[str]) -> str:
    return "\n".join(
        [
            "Fashion-MNIST was not found"
            + (" and could not be fetched:" if failures else " (fetching was not allowed)."),
            *(f"  - {failure}" for failure in failures),
            "Provide it in one of these ways:",
            f"  - as root: apt-get install {DEBIAN_PACKAGE}",
            f"  - put the four files ({_TRAIN[0].name}.gz …) into a folder and name it with --data-dir "
            f"or the environment variable {ENVIRONMENT_VARIABLE}",
            "  - name the root folder of torchvision's FashionMNIST (with FashionMNIST/raw inside) likewise",
            f"  - put them into {cache_dir() / 'fashion-mnist'}",
            "Searched: " + ", ".join(str(folder) for folder in searched),
        ]
    )


def _read(files: tuple[IdxFile, IdxFile], folder: Path) -> tuple[Tensor, Tensor]:
    images, labels = (file.read(file.find(folder) or folder / f"{file.name}.gz") for file in files)
    return images[:, None], labels.long()


ENTRY = load_fashion_mnist
