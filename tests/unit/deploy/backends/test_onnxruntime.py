from __future__ import annotations

from pathlib import Path

import pytest
import torch

from billhook.deploy import export
from billhook.errors import StorageError
from billhook.measure import backends
from tests.unit.deploy.toy_networks import convolutions

BACKEND = backends.get("onnxruntime")


def test_widths_are_rounded_as_measured() -> None:
    assert BACKEND.rounding.preferred == 16
    assert BACKEND.rounding.minimum == 4
    assert backends.info("onnxruntime").title == BACKEND.title


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    artifact = export(convolutions(), torch.randn(1, 3, 8, 8), tmp_path / "net", purpose="timing")
    artifact.model_path.write_bytes(b"not a network")
    with pytest.raises(StorageError, match=r"model\.onnx: ONNX Runtime .* refuses it"):
        BACKEND.open(artifact)
