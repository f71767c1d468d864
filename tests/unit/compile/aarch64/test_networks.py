"""Networks on the engine for aarch64, under emulation, compute what they compute in PyTorch."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook.compile.compiler import compile_model
from billhook.compile.toolchain import Toolchain
from billhook.deploy import compile_for
from billhook.models import build
from tests.unit.compile.aarch64.emulator import Emulator, emulated
from tests.unit.compile.exactness import image
from tests.unit.compile.lower.test_whole_networks import settled

TOLERANCE = 1e-5  # of the largest output
CONVOLUTIONS = {
    "3x3": lambda: nn.Conv2d(5, 19, 3, padding=1),
    "1x1": lambda: nn.Conv2d(16, 24, 1),
    "5x5 without padding": lambda: nn.Conv2d(3, 9, 5),
    "strided": lambda: nn.Conv2d(8, 16, 3, 2, padding=1),
    "dilated": lambda: nn.Conv2d(4, 8, 3, padding=2, dilation=2),
    "grouped": lambda: nn.Conv2d(12, 24, 3, padding=1, groups=3),
    "depthwise": lambda: nn.Conv2d(13, 13, 3, padding=1, groups=13),
    "depthwise 5x5, strided": lambda: nn.Conv2d(13, 13, 5, 2, padding=2, groups=13),
    "sparse 8x1": lambda: _sparse(8),
    "sparse 4x1": lambda: _sparse(4),
    "sparse 1x1": lambda: _sparse(1),
}


def _sparse(rows: int) -> nn.Module:
    """Return a convolution of which blocks of `rows` outputs keep a quarter of their inputs."""
    layer = nn.Conv2d(16, 24, 3, padding=1)
    with torch.no_grad():
        layer.weight *= (torch.rand(24 // rows, 16, 3, 3) < 0.25).repeat_interleave(rows, 0)
    return layer


def _assert_equal(found: np.ndarray, model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        expected = model(x).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("isa", ["neon", "portable"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions_of_each_kind(aarch64: Emulator, kind: str, isa: str) -> None:
    torch.manual_seed(0)
    layer = CONVOLUTIONS[kind]()
    model, x = nn.Sequential(layer, nn.Hardswish()).eval(), image(layer.in_channels, 11, 21)
    (found,) = aarch64.session(compile_model(model, x).file, 2, isa).run([x.numpy()])
    _assert_equal(found, model, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet-v2", "resnet-8"])
def test_networks_of_the_zoo(aarch64: Emulator, name: str) -> None:
    torch.manual_seed(0)
    model, x = settled(build(name)), image(3, 32, 32)
    file = compile_model(model, x, check=False).file
    for threads in (1, 4):
        (found,) = aarch64.session(file, threads).run([x.numpy()])
        _assert_equal(found, model, x)


@pytest.mark.slow
def test_a_c_project_runs_there(aarch64: Emulator, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = settled(build("resnet-8")), image(3, 32, 32, batch=1)
    compile_for(model, x, tmp_path / "net", target="c")
    cmake = Toolchain.find("aarch64").cmake
    configure = ("-S", tmp_path / "net", "-B", tmp_path / "build", "--toolchain", "aarch64.cmake")
    for arguments in ((*configure, "-DCMAKE_EXE_LINKER_FLAGS=-static"), ("--build", tmp_path / "build")):
        done = subprocess.run([cmake, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in (done.stdout + done.stderr).lower()
    x.numpy().tofile(tmp_path / "x.bin")
    emulated(tmp_path / "build" / "network", tmp_path / "x.bin", "-o", tmp_path / "y.bin")
    _assert_equal(np.fromfile(tmp_path / "y.bin", np.float32).reshape(1, -1), model, x)
