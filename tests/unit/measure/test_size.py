from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from billhook.measure import compressed_size, size
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
