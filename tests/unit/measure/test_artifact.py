from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from billhook.errors import InputError, StorageError
from billhook.measure import Artifact, FileRecord, Manifest, TensorSpec
from tests.unit.measure.toy_backend import toy


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return toy(tmp_path / "net", work=3)


def test_an_artifact_is_found_by_its_folder_and_by_its_model_file(artifact: Artifact) -> None:
    assert Artifact.load(artifact.directory) == artifact
    assert Artifact.load(artifact.model_path).manifest == artifact.manifest
    assert artifact.name == "net"


def test_every_file_is_recorded_with_size_and_hash(artifact: Artifact) -> None:
    (record,) = artifact.manifest.files
    assert record.name == "model.json"
    assert record.bytes == artifact.model_path.stat().st_size
    assert len(record.sha256) == 64


def test_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nothing-here: no such file"):
        Artifact.load(tmp_path / "nothing-here")


def test_a_file_that_billhook_did_not_export(tmp_path: Path) -> None:
    (tmp_path / "foreign.onnx").write_bytes(b"\x08\x07")
    with pytest.raises(StorageError, match=r"foreign\.onnx: no manifest\.json beside it.*billhook export"):
        Artifact.load(tmp_path / "foreign.onnx")


def test_a_stray_file_in_an_artifact(artifact: Artifact) -> None:
    (artifact.directory / "stray.onnx").write_bytes(b"")
    with pytest.raises(StorageError, match="does not belong to the artifact"):
        Artifact.load(artifact.directory / "stray.onnx")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "model.json: missing"),
        (b"{", "truncated: 1 bytes instead of 11"),
        (b'{"work": 3}\n', "has grown: 12 bytes instead of 11"),
        (b'{"work": 4}', "changed since the export"),
    ],
)
def test_a_damaged_file(artifact: Artifact, content: bytes | None, message: str) -> None:
    artifact.model_path.unlink()
    if content is not None:
        artifact.model_path.write_bytes(content)
    with pytest.raises(StorageError, match=message):
        Artifact.load(artifact.directory)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b" " * (2**20 + 1)])
def test_a_damaged_manifest(artifact: Artifact, content: bytes) -> None:
    (artifact.directory / "manifest.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"manifest\.json"):
        Artifact.load(artifact.directory)


def test_hashes_can_be_left_unread_but_sizes_cannot(artifact: Artifact) -> None:
    artifact.model_path.write_text('{"work": 4}')
    Artifact.load(artifact.directory, check_hashes=False)
    artifact.model_path.write_text("")
    with pytest.raises(StorageError, match="truncated"):
        Artifact.load(artifact.directory, check_hashes=False)


def test_a_manifest_that_asks_for_an_absurd_file_is_refused(artifact: Artifact) -> None:
    path = artifact.directory / "manifest.json"
    data = json.loads(path.read_text())
    data["files"][0]["bytes"] = 2**60
    path.write_text(json.dumps(data))
    with pytest.raises(StorageError, match="truncated"):
        Artifact.load(artifact.directory)


SPECS = (
    TensorSpec("image", (None, 3, 4), "float32"),
    TensorSpec("ids", (None, 50), "int64", 5, 9),
    TensorSpec("mask", (50,), "bool"),
    TensorSpec("half", (None,), "float16"),
)


def _with_inputs(*specs: TensorSpec, batch: int | None = 2, dynamic: bool = True) -> Artifact:
    files = (FileRecord("m", 0, ""),)
    return Artifact(Path("net"), Manifest("toy", "m", files, specs, (), batch, dynamic))


def test_made_up_inputs_follow_the_manifest() -> None:
    image, ids, mask, half = _with_inputs(*SPECS).random_inputs(7)
    assert (image.shape, image.dtype) == ((7, 3, 4), np.float32)
    assert ids.shape == (7, 50)
    assert set(np.unique(ids)) == {5, 6, 7, 8, 9}
    assert mask.shape == (50,)
    assert set(np.unique(mask)) == {False, True}
    assert half.dtype == np.float16


def test_made_up_inputs_depend_only_on_the_seed() -> None:
    artifact = _with_inputs(*SPECS)
    first, again, other = (artifact.random_inputs(seed=s) for s in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_without_a_batch_size_the_example_s_is_taken() -> None:
    assert _with_inputs(SPECS[0]).random_inputs()[0].shape == (2, 3, 4)


def test_a_fixed_batch_size_cannot_be_changed() -> None:
    artifact = _with_inputs(TensorSpec("x", (2, 3), "float32"), dynamic=False)
    assert artifact.random_inputs(2)[0].shape == (2, 3)
    with pytest.raises(InputError, match="fixed batch size 2, cannot run with 1; use batch=2"):
        artifact.random_inputs(1)


def test_absurd_inputs_are_refused() -> None:
    with pytest.raises(InputError, match=r"'x' of shape .* larger than"):
        _with_inputs(TensorSpec("x", (10**6, 10**6), "float32")).random_inputs()
