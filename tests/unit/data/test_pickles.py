from __future__ import annotations

import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from billhook.data import _pickles
from billhook.data._pickles import read_pickle
from billhook.errors import DataError

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 12)


def dump(path: Path, content: object, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def python_2_pickle(array: np.ndarray, labels: list[int]) -> bytes:
    """Write {'data': array, 'labels': labels} opcode by opcode, as Python 2 and numpy 1 did for CIFAR."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<I", len(value)) + value  # BINSTRING

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)  # BININT

    dtype = b"cnumpy\ndtype\nq\x04U\x02u1q\x05K\x00K\x01\x87q\x06Rq\x07"
    dtype += b"(K\x03U\x01|q\x08NNN" + number(-1) * 2 + b"K\x00tq\x09b"
    shape = b"".join(number(n) for n in array.shape) + b"\x86"
    built = b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01bq\x03\x87R"
    built += b"(K\x01" + shape + dtype + b"\x89" + text(array.tobytes()) + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + built + text(b"labels") + numbers + b"u."


def test_what_python_2_wrote_is_read(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes(python_2_pickle(PIXELS, [7, 3]))

    content = read_pickle(path)

    assert np.array_equal(content["data"], PIXELS)
    assert content["labels"] == [7, 3]


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("array", [PIXELS, np.asfortranarray(PIXELS)], ids=["C", "Fortran"])
def test_what_python_3_writes_is_read(tmp_path: Path, protocol: int, array: np.ndarray) -> None:
    content = {b"data": array, "names": [b"cat", "dog"], "labels": [1, 2], "number": 3}

    found = read_pickle(dump(tmp_path / "batch", content, protocol))

    assert np.array_equal(found["data"], PIXELS)
    assert found["names"] == ["cat", "dog"]
    assert found["labels"] == [1, 2]
    assert found["number"] == 3


class Attack:
    """An object whose pickle calls a function."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", [2, 4])
def test_code_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "run"
    path = dump(tmp_path / "batch", {"data": Attack(os.mkdir, str(marker))}, protocol)

    with pytest.raises(DataError, match=r"batch is refused: it holds the name (posix|nt)\.mkdir"):
        read_pickle(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [{"data": np.zeros(3, np.float32)}, {"data": np.array([object()])}, {"data": np.zeros(2, np.int64)}],
)
def test_only_arrays_of_bytes_are_data(tmp_path: Path, content: object) -> None:
    with pytest.raises(DataError, match="refused"):
        read_pickle(dump(tmp_path / "batch", content))


def test_an_array_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes(
        python_2_pickle(PIXELS, []).replace(b"J\x02\0\0\0J\x0c\0\0\0", b"J\x02\0\0\0J\x0d\0\0\0")
    )

    with pytest.raises(DataError, match="shape and bytes do not fit"):
        read_pickle(path)


def test_instructions_that_build_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes(b"\x80\x02(ios\nsystem\n.")  # INST: names a class and calls it at once

    with pytest.raises(DataError, match="the instruction INST"):
        read_pickle(path)


def test_a_huge_memo_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes(b"\x80\x02}r" + struct.pack("<I", 2**31) + b".")

    with pytest.raises(DataError, match="memo index"):
        read_pickle(path)


def test_functions_cannot_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes(b"\x80\x02c_codecs\nencode\n}U\x01aK\x01sb.")  # BUILD: sets an attribute

    with pytest.raises(DataError, match="change a function"):
        read_pickle(path)
    assert read_pickle(dump(tmp_path / "good", {"data": PIXELS})).keys() == {"data"}


@pytest.mark.parametrize("keep", [0, 1, 40, 150, -1])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    path = dump(tmp_path / "data_batch_1", {"data": PIXELS, "labels": [1, 2]})
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(DataError, match="data_batch_1 is truncated or damaged"):
        read_pickle(path)


def test_random_damage_never_raises_anything_else(tmp_path: Path) -> None:
    good = io.BytesIO(pickle.dumps({"data": PIXELS, "labels": [1, 2]}, 2)).getvalue()
    rng = np.random.default_rng(0)
    path = tmp_path / "batch"
    for _ in range(500):
        damaged = bytearray(good)
        for place in rng.integers(len(good), size=3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_pickle(path)
        except DataError:
            continue


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pickles, "MAX_BYTES", 100)

    with pytest.raises(DataError, match="more than any file of this data set"):
        read_pickle(dump(tmp_path / "batch", {"data": PIXELS}))


def test_something_else_than_a_dictionary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds a list instead of a dictionary"):
        read_pickle(dump(tmp_path / "batch", [1]))
    with pytest.raises(DataError, match="nothing cannot be read"):
        read_pickle(tmp_path / "nothing")
