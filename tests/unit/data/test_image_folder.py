from __future__ import annotations

import sys
import zlib
from itertools import chain
from pathlib import Path

import pytest
import torch

from billhook.data import load
from billhook.errors import DataError, InputError, MissingExtraError

Image = pytest.importorskip("PIL.Image")

COLOURS = {"blue": (0, 0, 255), "red": (255, 0, 0)}


def write(folder: Path, count: int = 12, *, colours: dict[str, tuple[int, int, int]] = COLOURS) -> Path:
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            size = (20 + number, 24)
            Image.new("RGB", size, colour).save(folder / name / f"{number}.{'png' if number % 2 else 'jpg'}")
    return folder


def sizes(data_dir: Path) -> tuple[int, int, int]:
    data = load("image-folder", data_dir, image_size=8)
    return len(data.train), len(data.validation), len(data.test.open())


def test_parts_that_are_missing_are_held_out(tmp_path: Path) -> None:
    assert sizes(write(tmp_path / "flat")) == (20, 2, 2)
    write(tmp_path / "split" / "train")
    assert sizes(tmp_path / "split") == (20, 2, 2)


def test_val_is_the_test_set_unless_there_is_one(tmp_path: Path) -> None:
    write(tmp_path / "train"), write(tmp_path / "val", 3)
    assert sizes(tmp_path) == (22, 2, 6)

    write(tmp_path / "test", 4)
    assert sizes(tmp_path) == (24, 6, 8)


def test_images_are_decoded_and_normalised(tmp_path: Path) -> None:
    data = load("image-folder", write(tmp_path / "images"), image_size=8)

    inputs, labels = data.calibration(len(data.train))
    pixels = inputs * torch.tensor(data.std)[:, None, None] + torch.tensor(data.mean)[:, None, None]

    assert data.classes == ("blue", "red")
    assert inputs.shape[1:] == data.input_shape == (3, 8, 8)
    for colour, label in (((0, 0, 1), 0), ((1, 0, 0), 1)):
        expected = torch.tensor(colour, dtype=torch.float32)[:, None, None].expand(3, 8, 8)
        torch.testing.assert_close(pixels[labels == label][0], expected, atol=0.02, rtol=0)


def test_evaluation_crops_the_centre(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        image = Image.new("RGB", (64, 32))  # black, with a white centre
        # The crop is 28 pixels wide; bilinear reduction looks one step of 4 pixels further.
        image.paste((255, 255, 255), (14, 0, 50, 32))
        for number in range(10):
            image.save(tmp_path / name / f"{number}.png")

    data = load("image-folder", tmp_path, image_size=7)
    inputs, _ = next(iter(data.evaluation("train")))

    white = (1 - torch.tensor(data.mean)) / torch.tensor(data.std)
    torch.testing.assert_close(inputs[0], white[:, None, None].expand(3, 7, 7), atol=1e-3, rtol=0)


def test_training_batches_are_random_repeatable_and_resumable(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            Image.linear_gradient("L").rotate(36 * number).save(folder / name / f"{number}.png")
    loader = load("image-folder", folder, image_size=8).training(4, seed=1)
    state = torch.get_rng_state()

    whole, again, rest = list(loader.epoch(1)), list(loader.epoch(1)), list(loader.epoch(1, start=2))
    other = next(loader.epoch(2))

    assert len(whole) == len(loader) == 4
    assert all(x.equal(z) and y.equal(w) for (x, y), (z, w) in zip(whole, again, strict=True))
    assert all(x.equal(z) and y.equal(w) for (x, y), (z, w) in zip(whole[2:], rest, strict=True))
    assert not whole[0][0].equal(other[0])
    assert torch.get_rng_state().equal(state)


@pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning"
)  # Python 3.12, torch's workers
def test_workers_give_the_same_batches_and_messages(tmp_path: Path) -> None:
    folder = write(tmp_path / "images", 10)
    alone, helped = (load("image-folder", folder, image_size=8, workers=n).training(4) for n in (0, 2))

    assert all(a[0].equal(b[0]) for a, b in zip(alone.epoch(0), helped.epoch(0), strict=True))

    for file in (folder / "red").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DataError) as caught:
        list(helped.epoch(0))
    assert str(caught.value).startswith(str(folder / "red"))
    assert "\n" not in str(caught.value)


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    for name, mode in (("a", "L"), ("b", "RGBA")):
        (tmp_path / name).mkdir()
        for number in range(10):
            Image.new(mode, (9, 9)).save(tmp_path / name / f"{number}.png")

    assert load("image-folder", tmp_path, image_size=8).calibration(4)[0].shape == (4, 3, 8, 8)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    data = load("image-folder", write(tmp_path / "images"), image_size=8)
    for number, broken in enumerate((b"", b"no image", None)):
        file = sorted((tmp_path / "images" / "red").iterdir())[number]
        file.write_bytes(file.read_bytes()[:60] if broken is None else broken)

    everything = chain.from_iterable(data.evaluation(part) for part in ("train", "validation", "test"))
    with pytest.raises(DataError, match=r"red/\d+\.(png|jpg) is not a readable image .*replace or remove"):
        list(everything)


def test_an_image_that_claims_to_be_huge_is_not_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    side = (9_000).to_bytes(4, "big")
    header = chunk(b"IHDR", side + side + bytes([8, 2, 0, 0, 0]))
    folder = write(tmp_path / "images")
    for file in (folder / "red").iterdir():
        file.write_bytes(
            b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
        )

    with pytest.raises(DataError, match="too large: 9000×9000 pixels"):
        load("image-folder", folder, image_size=8).calibration(20)


def test_folders_that_make_no_sense_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BILLHOOK_DATA", raising=False)
    with pytest.raises(DataError, match="--data-dir"):
        load("image-folder")
    with pytest.raises(DataError, match="0 class folders"):
        load("image-folder", tmp_path)
    with pytest.raises(InputError, match="image_size"):
        load("image-folder", tmp_path, image_size=0)

    write(tmp_path / "empty")
    (tmp_path / "empty" / "green").mkdir()
    with pytest.raises(DataError, match="green holds no images"):
        load("image-folder", tmp_path / "empty")

    write(tmp_path / "few", 2)
    with pytest.raises(DataError, match="too few images"):
        load("image-folder", tmp_path / "few")

    write(tmp_path / "only" / "val")
    with pytest.raises(DataError, match="no 'train'"):
        load("image-folder", tmp_path / "only")


def test_a_class_that_was_not_trained_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "train")
    write(tmp_path / "test", 1, colours={"blue": (0, 0, 255), "redd": (255, 0, 0)})

    with pytest.raises(DataError, match=r"redd is no class of the training images; did you mean 'red'"):
        load("image-folder", tmp_path, image_size=8).test.open()


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "images", 2)
    monkeypatch.setitem(sys.modules, "PIL", None)

    with pytest.raises(MissingExtraError, match=r"billhook\[images\]"):
        load("image-folder", folder)
