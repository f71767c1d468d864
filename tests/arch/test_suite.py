"""The rules that tests/conftest.py sets for all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.arch.source import ROOT

SKIPPING = """
import pytest

def test_gpu():
    pytest.skip("hardware: no GPU")

def test_library():
    pytest.skip("no such library")

@pytest.mark.xfail(reason="not yet", strict=True)
def test_expected():
    assert False
"""
MISSING = "import pytest\npytest.importorskip('no_such_module')\n"


@pytest.mark.parametrize(
    ("ci", "text", "outcome"),
    [
        ("false", SKIPPING, "2 skipped, 1 xfailed"),
        ("true", SKIPPING, "1 failed, 1 skipped, 1 xfailed"),
        ("false", MISSING, "1 skipped"),
        ("true", MISSING, "1 error"),
    ],
)
def test_a_skip_is_a_failure_in_ci_unless_hardware_is_missing(
    tmp_path: Path, ci: str, text: str, outcome: str
) -> None:
    (tmp_path / "test_skipping.py").write_text(text)
    program = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "tests.conftest", str(tmp_path)]
    environment = {**os.environ, "CI": ci, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "src")))}
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert outcome in done.stdout.splitlines()[-1], done.stdout + done.stderr


def test_tests_run_on_one_thread() -> None:
    assert torch.get_num_threads() == 1


def test_networks_of_torchvision_can_be_built(torchvision: ModuleType, timm: ModuleType) -> None:
    assert torchvision.models.shufflenet_v2_x0_5().eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)
    assert "resnet18" in timm.list_models()
