"""billhook's own engine as a runtime; what every runtime must keep is in tests/contract."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from billhook.deploy import export
from billhook.deploy.backends.billhook_ import BillhookEngine
from billhook.errors import EngineError, InputError, TooLargeError
from billhook.measure import Artifact, backends
from tests.unit.deploy.toy_networks import Attention

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A convolution for images of any batch size."""
    folder = tmp_path_factory.mktemp("engine") / "net"
    return export(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8), folder, backend="billhook")


def test_what_the_engine_lacks_is_left_to_onnx_runtime_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network, tokens = Attention().eval(), torch.randint(20, (2, 6))
    with caplog.at_level(logging.WARNING, "billhook"):
        made = export(network, tokens, tmp_path / "net", backend="billhook")
    assert made.manifest.backend == "onnxruntime"
    (note,) = made.manifest.notes
    assert note.startswith("left to ONNX Runtime, because the engine has no form for")
    assert "embedding" in note
    assert "toy_networks.py" in caplog.text  # where it stands
    assert "toy_networks.py" not in note  # the file is for others
    (found,) = backends.get("billhook").open(made).run([tokens.numpy()])
    with torch.no_grad():
        np.testing.assert_allclose(found, network(tokens).numpy(), rtol=1e-4, atol=1e-5)


def test_what_is_too_large_for_the_engine_is_left_to_onnx_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billhook.compile.layout.LIMIT", 100)
    made = export(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8), tmp_path / "net", backend="billhook")
    assert made.manifest.backend == "onnxruntime"
    assert made.manifest.notes == ("left to ONNX Runtime, because it is too large",)
    with pytest.raises(TooLargeError, match="use smaller inputs"):
        BillhookEngine(fallback=None).export(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8), tmp_path)


def test_what_computes_with_the_number_of_samples_is_left_to_onnx_runtime(tmp_path: Path) -> None:
    class Counting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) * x.shape[0]

    made = export(Counting(), torch.randn(2, 3, 8, 8), tmp_path / "net", backend="billhook")
    assert made.manifest.notes == ("left to ONNX Runtime, because the engine has no form for mul",)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], r"0 inputs were given, the network takes 1"),
        (
            [np.zeros((1, 3, 8, 9), np.float32)],
            r"'\w+' has shape \[1, 3, 8, 9\] .* expected \['batch', 3, 8, 8\]",
        ),
        ([np.zeros((3, 8, 8), np.float32)], r"shape \[3, 8, 8\]"),
        ([np.zeros((1, 3, 8, 8))], r"type float64; .* float32"),
    ],
)
def test_wrong_inputs_are_named(artifact: Artifact, wrong: list[np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        backends.get("billhook").open(artifact).run(wrong)


def test_zeros_make_the_file_smaller(tmp_path: Path) -> None:
    model = nn.Conv2d(64, 64, 3)
    sizes = []
    for density in (1.0, 0.2):
        with torch.no_grad():
            model.weight *= (
                (torch.rand(8, 1, 64, 3, 3) < density).expand(8, 8, 64, 3, 3).reshape(64, 64, 3, 3)
            )
        made = export(model, torch.randn(1, 64, 8, 8), tmp_path / str(density), backend="billhook")
        sizes.append(made.model_path.stat().st_size)
    assert sizes[1] < 0.35 * sizes[0]


def test_an_engine_that_is_not_built_is_said_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_ENGINE", str(tmp_path / "libbillhook.so"))
    with pytest.raises(EngineError, match=r"(?s)not built.*cmake"):
        backends.get("billhook").require()
