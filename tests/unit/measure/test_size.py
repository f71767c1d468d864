from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from billhook.measure import compressed_size, size
from billhook.measure.size import stored_size
from tests.unit.measure.toy_backend import toy


def test_size_counts_the_model_files_only(tmp_path: Path) -> None:
    artifact = toy(tmp_path / "net", padding="x" * 1000)
    measured = size(artifact)
    assert measured.unit == "B"
    assert measured.value == artifact.model_path.stat().st_size


def test_compressed_size_is_what_gzip_makes_of_it(tmp_path: Path) -> None:
    artifact = toy(tmp_path / "net", padding="x" * 5000)
    expected = len(gzip.compress(artifact.model_path.read_bytes(), 6, mtime=0))
    assert compressed_size(artifact).value == pytest.approx(expected, abs=4)
    assert compressed_size(artifact).value < size(artifact).value / 10


def test_a_file_of_weights_has_a_size_before_and_after_gzip(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\0" * 100_000)
    plain, packed = stored_size(path)
    assert plain.value == 100_000
    assert packed.value == len(gzip.compress(path.read_bytes(), 6, mtime=0))
    assert packed.conditions == {"of": "weights.safetensors", "compression": "gzip -6"}
