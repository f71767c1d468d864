"""What `compile_for` hands over, for each target."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from billhook.compile.library import HEADER, VARIABLE, isas, library_path
from billhook.deploy import compile_for
from billhook.errors import EngineError, NameNotFoundError, StorageError, UnsupportedError
from billhook.measure import Artifact
from tests.unit.deploy.toy_networks import Attention, convolutions

pytestmark = pytest.mark.usefixtures("engine")

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LEVELS = {"x86-64-v3": "avx2", "x86-64-v4": "avx512"}
FAMILIES = {"x86-64-v3": ("avx2", "avxvnni"), "x86-64-v4": ("avx512",)}
RUN = """
import json, sys
import numpy as np
from billhook.compile.library import isas
from billhook.compile.session import EngineSession
with EngineSession(sys.argv[1]) as session:
    (found,) = session.run([np.array(json.loads(sys.stdin.read()), np.float32)])
print(json.dumps({"isas": isas(), "outputs": found.tolist()}))
"""


def test_native_is_an_artifact_with_the_library_in_use(tmp_path: Path) -> None:
    made = compile_for(convolutions(), IMAGE, tmp_path / "net", preprocessing={"size": 8})
    assert Artifact.load(tmp_path / "net") == made  # with the hash of every file
    assert [f.name for f in made.manifest.files] == ["billhook.h", "libbillhook.so", "model.bhk"]
    assert (tmp_path / "net" / "libbillhook.so").read_bytes() == library_path().read_bytes()
    assert (tmp_path / "net" / "billhook.h").read_text() == HEADER.read_text()
    assert made.manifest.parity is not None
    assert made.manifest.parity["max_rel_error"] < 1e-5
    assert made.manifest.preprocessing == {"size": 8}
    assert made.manifest.notes == ("libbillhook.so is the engine for native",)
    (tmp_path / "net" / "libbillhook.so").write_bytes(b"other")
    with pytest.raises(StorageError, match=r"libbillhook\.so: truncated"):
        Artifact.load(tmp_path / "net")


@pytest.mark.slow
@pytest.mark.parametrize("target", LEVELS)
def test_the_library_for_a_level_has_its_instruction_set_only(tmp_path: Path, target: str) -> None:
    if LEVELS[target] not in isas():
        pytest.skip(f"hardware: this processor has no {LEVELS[target]}")
    model = convolutions().eval()
    made = compile_for(model, IMAGE, tmp_path / "net", target=target)
    done = subprocess.run(
        [sys.executable, "-c", RUN, made.model_path],
        input=json.dumps(IMAGE.tolist()),
        env={**os.environ, VARIABLE: str(tmp_path / "net" / "libbillhook.so")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["isas"] == [name for name in isas() if name.startswith(FAMILIES[target])]
    with torch.no_grad():
        np.testing.assert_allclose(found["outputs"], model(IMAGE).numpy(), rtol=1e-4, atol=1e-5)


def test_a_c_project_has_its_artifact_inside(tmp_path: Path) -> None:
    made = compile_for(convolutions(), IMAGE, tmp_path / "net", target="c")
    assert made == Artifact.load(tmp_path / "net" / "model")
    assert (tmp_path / "net" / "main.c").is_file()


@pytest.mark.parametrize("target", ["native", "c"])
def test_an_unsupported_network_is_refused(
    tmp_path: Path, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UnsupportedError, match="embedding") as caught:
        compile_for(Attention(), torch.randint(20, (2, 6)), tmp_path / "net", target=target)
    assert caught.value.operators == ("input", "embedding")
    assert "ONNX Runtime" not in caplog.text  # it was not left to another runtime
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_target_and_an_existing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NameNotFoundError, match=r"unknown target 'x86-64-v5'; did you mean 'x86-64-v[34]'"):
        compile_for(convolutions(), IMAGE, tmp_path / "net", target="x86-64-v5")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(StorageError, match="never overwritten"):
        compile_for(convolutions(), IMAGE, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_a_missing_compiler_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("PATH", str(_only("cmake", tmp_path / "bin")))

    class Untouched(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError("the network was run")

    with pytest.raises(EngineError, match=r"aarch64-linux-gnu-gcc, which is not there \(Debian: apt-get"):
        compile_for(Untouched(), IMAGE, tmp_path / "net", target="aarch64")
    assert not (tmp_path / "net").exists()


def _only(program: str, folder: Path) -> Path:
    """Return a folder that holds one program."""
    folder.mkdir()
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed; run scripts/setup")
    (folder / program).symlink_to(found)
    return folder
