from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from billhook.data import _cifar, load
from billhook.errors import DataError

NAMES = [f"class {number}" for number in range(10)]


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, 2))


def batch(count: int, labels: str, classes: int, seed: int = 0) -> dict[bytes, object]:
    pixels = np.random.default_rng(seed).integers(256, size=(count, 3072), dtype=np.uint8)
    return {b"data": pixels, labels.encode(): [i % classes for i in range(count)], b"batch_label": b"x"}


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-10-batches-py"
    for number in range(1, 6):
        write(folder / f"data_batch_{number}", batch(20, "labels", 10, number))
    write(folder / "test_batch", batch(30, "labels", 10, 6))
    write(folder / "batches.meta", {b"label_names": [name.encode() for name in NAMES]})
    return folder


def test_cifar10_is_read_from_its_folder_or_the_one_above(cifar10: Path) -> None:
    for folder in (cifar10, cifar10.parent):
        data = load("cifar10", folder)

        assert (len(data.train), len(data.validation), len(data.test.open())) == (90, 10, 30)
        assert data.classes == tuple(NAMES)
        assert data.input_shape == (3, 32, 32)


def test_images_are_planes_of_red_green_and_blue(cifar10: Path) -> None:
    content = batch(20, "labels", 10)
    content[b"data"] = np.repeat(np.array([[10, 20, 30]], np.uint8), 1024, axis=1).repeat(20, axis=0)
    write(cifar10 / "test_batch", content)

    images = load("cifar10", cifar10).test.open().images  # type: ignore[attr-defined]

    assert images[0].float().mean((1, 2)).tolist() == [10, 20, 30]


def test_cifar100_has_fine_labels(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    write(folder / "train", batch(400, "fine_labels", 100))
    write(folder / "test", batch(100, "fine_labels", 100))

    data = load("cifar100", tmp_path)

    assert data.train.labels.max() == 99  # type: ignore[attr-defined]
    assert data.classes == tuple(str(number) for number in range(100))  # there is no meta file


def test_a_folder_without_it_lists_where_was_searched(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cifar10 was not found. Unpack cifar-10-python\.tar\.gz"):
        load("cifar10", tmp_path)


def test_a_missing_file_is_named(cifar10: Path) -> None:
    (cifar10 / "data_batch_3").unlink()

    with pytest.raises(DataError, match="data_batch_3 is missing"):
        load("cifar10", cifar10)


def test_more_images_than_the_data_set_has_are_refused(
    cifar10: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cifar, "_MAX_IMAGES", 19)

    with pytest.raises(DataError, match="data_batch_1 holds 20 images, not 1 to 19"):
        load("cifar10", cifar10)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (b"data", np.zeros((20, 100), np.uint8), "3072 bytes per image"),
        (b"data", None, "3072 bytes per image"),
        (b"labels", [1, 2], "a label per image"),
        (b"labels", [10] * 20, "labels outside 0 to 9"),
        (b"labels", ["a"] * 20, "labels outside 0 to 9"),
    ],
)
def test_contents_that_do_not_fit_are_refused(cifar10: Path, key: bytes, value: object, message: str) -> None:
    write(cifar10 / "data_batch_2", {**batch(20, "labels", 10), key: value})

    with pytest.raises(DataError, match=f"data_batch_2 .*{message}"):
        load("cifar10", cifar10)
