from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from billhook.deploy import export
from billhook.errors import ExportError, StorageError
from billhook.measure import Artifact, backends
from tests.unit.deploy.toy_networks import convolutions

BACKEND = backends.get("openvino")

IMPORT = """
import sys
from billhook.deploy.backends.openvino_ import ENTRY
ENTRY.prepare()
import openvino
assert "openvino_telemetry" not in sys.modules, "the package was imported"
assert callable(openvino.convert_model), "others in the process lose a function"
import openvino_telemetry
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("exported") / "net"
    return export(convolutions(), torch.randn(1, 3, 8, 8), folder, backend="openvino", purpose="timing")


def test_widths_are_rounded_as_measured() -> None:
    assert BACKEND.rounding.preferred == 16
    assert BACKEND.rounding.minimum == 4
    assert backends.info("openvino").title == BACKEND.title


def test_the_network_is_in_openvino_s_own_format_with_float32_weights(artifact: Artifact) -> None:
    assert artifact.manifest.model == "model.xml"
    assert [f.name for f in artifact.manifest.files] == ["model.bin", "model.xml"]
    weights = sum(p.numel() for p in convolutions().parameters())
    assert artifact.manifest.files[0].bytes >= 4 * 0.9 * weights  # scales of batch norms are folded
    assert str(artifact.directory.parent) not in artifact.model_path.read_text()


@pytest.mark.parametrize("threads", [1, 2])
def test_it_computes_in_float32_in_one_stream_on_the_threads_that_were_asked_for(
    artifact: Artifact, threads: int
) -> None:
    compiled = BACKEND.open(artifact, threads)._request.get_compiled_model()
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
    assert compiled.get_property("NUM_STREAMS") == 1
    assert compiled.get_property("ENABLE_CPU_PINNING") is False


def test_a_truncated_file_of_weights_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    copy = Artifact(shutil.copytree(artifact.directory, tmp_path / "net"), artifact.manifest)
    weights = copy.directory / "model.bin"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(StorageError, match=r"model\.xml: OpenVINO [\d.]+ refuses it: .*bin file"):
        BACKEND.open(copy)


def test_a_network_it_cannot_read_is_an_export_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    def refuse(core: object, path: Path) -> None:
        raise RuntimeError(
            "Exception from src/core.cpp:1:\nCheck 'false' failed at x.cpp:2:\nno operator Foo\n"
        )

    monkeypatch.setattr(openvino.Core, "read_model", refuse)
    with pytest.raises(
        ExportError, match=r"OpenVINO [\d.]+ cannot read the exported network: no operator Foo"
    ):
        export(convolutions(), torch.randn(1, 3, 8, 8), tmp_path / "net", backend="openvino")
    assert not list(tmp_path.iterdir())


def test_a_session_outlives_the_arrays_it_was_fed(artifact: Artifact) -> None:
    session = BACKEND.open(artifact)
    x = np.ones((1, 3, 8, 8), np.float32)
    (expected,) = session.run([x])
    for _ in range(100):
        (again,) = session.run([np.ones((1, 3, 8, 8), np.float32)])
        np.testing.assert_array_equal(again, expected)


def test_importing_it_reports_nothing_to_anyone(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "TF_BUILD", "JENKINS_URL")}
    # Should the report be attempted after all, it finds no way out.
    environment |= {"HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", IMPORT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "intel").exists()
