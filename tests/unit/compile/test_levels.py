"""Libraries for one level of processors: on a lesser processor an error in words, no illegal instruction."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from billhook.compile.c_project import MODEL_FOLDER, write_project
from billhook.compile.compiler import compile_model
from billhook.compile.session import EnginePort

pytestmark = pytest.mark.slow


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; run scripts/setup --tests as root")
    return found


@pytest.mark.parametrize(
    ("level", "processor", "message"),
    [
        (
            "x86-64-v3",
            "Nehalem",
            "the engine: this processor lacks avx2, which this build of the engine needs\n",
        ),
        (
            "x86-64-v4",
            "max",
            "the engine: this processor lacks avx512, which this build of the engine needs\n",
        ),
        ("", "Nehalem", ""),
    ],
)
def test_a_lesser_processor_is_told_what_it_lacks(
    tmp_path: Path, level: str, processor: str, message: str
) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("hardware: these are levels of x86-64")
    emulator = _program("qemu-x86_64")
    model = nn.Conv2d(1, 2, 3, padding=1).eval()
    write_project(tmp_path, [EnginePort("x", (1, 4, 9))], [EnginePort("y", (2, 4, 9))], "1")
    (tmp_path / MODEL_FOLDER).mkdir()
    (tmp_path / MODEL_FOLDER / "model.bhk").write_bytes(compile_model(model, torch.zeros(1, 1, 4, 9)).file)
    cmake, build = _program("cmake"), tmp_path / "build"
    options = ["-DCMAKE_BUILD_TYPE=Debug", f"-DBH_LEVEL={level}"]  # which compiles fast
    subprocess.run([cmake, "-S", tmp_path, "-B", build, *options], check=True, capture_output=True)
    subprocess.run([cmake, "--build", build, "--parallel", "2"], check=True, capture_output=True)

    command = [emulator, "-cpu", processor, build / "network"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    warnings = ("qemu-x86_64: warning: TCG doesn't support requested feature",)
    said = [s for s in done.stderr.splitlines(keepends=True) if not s.startswith(warnings)]
    assert "".join(said) == message
    assert done.returncode == bool(message)
    assert len(done.stdout.splitlines()) == (0 if message else 2 * 4 * 9)
