from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from billhook.deploy import export
from billhook.errors import MissingExtraError, StorageError
from billhook.measure import Artifact, backends
from tests.unit.deploy.toy_networks import Keywords, convolutions

BACKEND = backends.get("onnxruntime")


def test_widths_are_rounded_as_measured() -> None:
    assert BACKEND.rounding.preferred == 16
    assert BACKEND.rounding.minimum == 4
    assert backends.info("onnxruntime").title == BACKEND.title


def test_a_session_takes_and_gives_tensors_in_the_manifest_s_order(tmp_path: Path) -> None:
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    artifact = export(Keywords(), {"b": b, "a": a}, tmp_path / "net")
    for threads in (1, 2):
        (output,) = BACKEND.open(artifact, threads).run([a.numpy(), b.numpy()])
        np.testing.assert_allclose(output, a - b, rtol=1e-6)


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    artifact = export(convolutions(), torch.randn(1, 3, 8, 8), tmp_path / "net", purpose="timing")
    artifact.model_path.write_bytes(b"not a network")
    with pytest.raises(StorageError, match=r"model\.onnx: ONNX Runtime .* refuses it"):
        BACKEND.open(artifact)


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = export(convolutions(), torch.randn(1, 3, 8, 8), tmp_path / "net", purpose="timing")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"billhook\[onnx\]"):
        BACKEND.open(Artifact.load(artifact.directory))
    with pytest.raises(MissingExtraError):
        BACKEND.prepare()
