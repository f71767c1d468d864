"""Start-up times. The best of several runs counts: a neighbour on the machine can only make a run slower."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.serial

EVERY_NAME = "import billhook; [getattr(billhook, name) for name in billhook.__all__]"


def _seconds(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def test_help_appears_at_once() -> None:
    assert min(_seconds("-m", "billhook", "--help") for _ in range(5)) < 0.3


@pytest.mark.parametrize("code", ["import billhook", EVERY_NAME], ids=["import", "every name"])
def test_billhook_adds_little_to_the_import_of_torch(code: str) -> None:
    rounds = [(_seconds("-c", code), _seconds("-c", "import torch")) for _ in range(4)]
    ours, torch = (min(times) for times in zip(*rounds, strict=True))
    assert ours < 1.5 * torch
