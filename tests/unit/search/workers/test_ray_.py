"""Workers on a real Ray cluster.

The tests are in `on_ray.py` and run in a process of their own: Ray ends a process that was connected to it
when its cluster goes away, and that would be a worker of pytest with all its other tests.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.arch.source import ROOT


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_workers_on_ray() -> None:
    program = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    tests = Path(__file__).with_name("on_ray.py")
    done = subprocess.run([*program, str(tests)], cwd=ROOT, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
