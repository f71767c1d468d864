from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import os
import shutil
import stat
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from billhook.data import fashion_mnist, load
from billhook.data._fetch import fetch_debian, fetch_web
from billhook.data._idx import IdxFile
from billhook.data._sources import DataOptions
from billhook.errors import DataError

COUNTS = {"train": 40, "t10k": 20}


def contents(kind: str) -> tuple[bytes, bytes]:
    """Return an image file and a label file of the miniature Fashion-MNIST."""
    count = COUNTS[kind]
    pixels = torch.randint(256, (count * 28 * 28,), generator=torch.Generator().manual_seed(count))
    images = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (count, 28, 28))
    labels = bytes([0, 0, 8, 1]) + count.to_bytes(4, "big") + bytes(i % 10 for i in range(count))
    return images + bytes(pixels.tolist()), labels


def names(kind: str) -> tuple[str, str]:
    return f"{kind}-images-idx3-ubyte", f"{kind}-labels-idx1-ubyte"


def write_files(folder: Path, *, zipped: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for kind in COUNTS:
        for name, content in zip(names(kind), contents(kind), strict=True):
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
            else:
                (folder / name).write_bytes(content)
    return folder


def package(folder: Path, file: Path, *, mode: str = "xz") -> Path:
    """Write a Debian package that holds `folder`, as dpkg-deb would lay it out."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{mode}") as archive:
        archive.add(folder, arcname="./usr/share/datasets/fashion-mnist")
    members = [
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", b"odd"),
        (f"data.tar.{mode}", buffer.getvalue()),
    ]
    blob = b"!<arch>\n"
    for name, content in members:
        blob += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        blob += content + b"\n" * (len(content) % 2)
    file.write_bytes(blob)
    return file


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Fashion-MNIST and without a network; the data set is a miniature."""
    monkeypatch.delenv("BILLHOOK_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setattr(fashion_mnist, "MIRROR", "http://127.0.0.1:9/")  # discard: refuses at once
    for kind, attribute in (("train", "_TRAIN"), ("t10k", "_TEST")):
        shapes = ((COUNTS[kind], 28, 28), (COUNTS[kind],))
        files = [
            IdxFile(name, shape, hashlib.sha256(content).hexdigest())
            for name, shape, content in zip(names(kind), shapes, contents(kind), strict=True)
        ]
        monkeypatch.setattr(fashion_mnist, attribute, tuple(files))
    return tmp_path


def apt_get(nowhere: Path, script: str) -> None:
    """Put an apt-get with this shell script on the path."""
    program = nowhere / "bin" / "apt-get"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_the_real_files_are_read(fashion_mnist: Path) -> None:
    data = load("fashion-mnist", fashion_mnist)

    inputs, labels = data.calibration(10_000)

    assert (len(data.train), len(data.validation)) == (55_000, 5_000)
    assert torch.bincount(data.validation.labels).tolist() == [500] * 10  # type: ignore[attr-defined]
    assert abs(inputs.mean()) < 0.02
    assert abs(inputs.std() - 1) < 0.02
    assert labels.max() == 9
    assert len(data.classes) == 10
    assert data.input_shape == (1, 28, 28)
    assert data.test.uses == 0


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("layout", ["", "fashion-mnist", "FashionMNIST/raw"])
def test_known_layouts_are_found(nowhere: Path, layout: str, zipped: bool) -> None:
    write_files(nowhere / "mine" / layout, zipped=zipped)

    data = load("fashion-mnist", nowhere / "mine")

    assert len(data.train) + len(data.validation) == 40
    assert len(data.test.open()) == 20


@pytest.mark.parametrize("place", ["environment", "debian", "cache/billhook/data/fashion-mnist", "data"])
def test_known_places_are_searched(nowhere: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(nowhere / place)
    if place == "environment":
        monkeypatch.setenv("BILLHOOK_DATA", str(nowhere / place))

    found = fashion_mnist.find_folder(DataOptions(fetch=False))

    assert found.resolve() == nowhere / place


def test_the_named_folder_comes_first(nowhere: Path) -> None:
    write_files(nowhere / "debian"), write_files(nowhere / "mine")

    assert fashion_mnist.find_folder(DataOptions(nowhere / "mine")) == nowhere / "mine"


def test_the_test_files_are_read_only_when_opened(nowhere: Path) -> None:
    folder = write_files(nowhere / "mine")
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(b"broken")

    data = load("fashion-mnist", folder)

    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz cannot be read"):
        data.test.open()


def test_a_truncated_file_is_named(nowhere: Path) -> None:
    folder = write_files(nowhere / "mine")
    file = folder / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-100])

    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz .*truncated.*delete it"):
        load("fashion-mnist", folder)


def test_a_file_with_other_bytes_is_refused(nowhere: Path) -> None:
    folder = write_files(nowhere / "mine", zipped=False)
    file = folder / "train-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1] + b"\x05")

    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte .*sha256"):
        load("fashion-mnist", folder)


def test_a_file_that_unpacks_to_too_much_is_not_read_to_its_end(nowhere: Path) -> None:
    folder = write_files(nowhere / "mine")
    bomb = gzip.compress(bytes(50_000_000))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(bomb)

    with pytest.raises(DataError, match="holds more than 48 bytes instead of 48"):
        load("fashion-mnist", folder)


def test_without_any_way_the_error_lists_all_ways(nowhere: Path) -> None:
    with pytest.raises(DataError) as caught:
        load("fashion-mnist")

    message = str(caught.value)
    for way in (
        "apt-get is not on this system",
        "127.0.0.1:9",
        "apt-get install",
        "--data-dir",
        "BILLHOOK_DATA",
    ):
        assert way in message
    assert "torchvision" in message
    assert str(nowhere / "debian") in message


def test_fetching_can_be_forbidden(nowhere: Path) -> None:
    apt_get(nowhere, f"touch {nowhere}/called")

    with pytest.raises(DataError, match="fetching was not allowed"):
        load("fashion-mnist", fetch=False)
    assert not (nowhere / "called").exists()


@pytest.mark.parametrize("mode", ["xz", "gz"])
def test_a_debian_package_is_fetched_into_the_cache(nowhere: Path, mode: str) -> None:
    deb = package(write_files(nowhere / "source"), nowhere / "source.deb", mode=mode)
    apt_get(nowhere, f'/bin/cp {deb} "$2_1.deb"')

    data = load("fashion-mnist")

    assert len(data.train) + len(data.validation) == 40
    cache = nowhere / "cache" / "billhook" / "data" / "fashion-mnist"
    assert sorted(os.listdir(cache)) == sorted(f"{name}.gz" for kind in COUNTS for name in names(kind))
    shutil.rmtree(nowhere / "bin")  # the second time nothing needs to be fetched
    assert len(load("fashion-mnist").train) == len(data.train)


def test_the_reason_why_apt_failed_is_told(nowhere: Path) -> None:
    apt_get(nowhere, "echo 'E: Unable to locate package' >&2; exit 100")

    with pytest.raises(DataError, match="apt-get download failed: E: Unable to locate package"):
        load("fashion-mnist")


def test_apt_that_hangs_is_stopped(nowhere: Path) -> None:
    apt_get(nowhere, "exec /bin/sleep 60")

    with pytest.raises(DataError, match="longer than 0 s"):
        fetch_debian("p", {}, nowhere, timeout=0.2)


@pytest.fixture
def mirror(nowhere: Path) -> Iterator[str]:
    """A web server for the folder `source`."""
    folder = str(write_files(nowhere / "source"))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=folder)  # type: ignore[arg-type]

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_the_mirror_is_the_last_resort(nowhere: Path, mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "MIRROR", mirror)

    assert len(load("fashion-mnist").test.open()) == 20


def test_a_download_that_is_too_large_is_stopped(nowhere: Path, mirror: str) -> None:
    with pytest.raises(DataError, match="larger than 10 bytes"):
        fetch_web(mirror, {"train-labels-idx1-ubyte.gz": 10}, nowhere)
    assert not list(nowhere.glob("*.partial"))


def test_a_file_that_the_mirror_lacks_is_an_error(nowhere: Path, mirror: str) -> None:
    with pytest.raises(DataError, match=r"missing\.gz cannot be downloaded"):
        fetch_web(mirror, {"missing.gz": 10}, nowhere)
