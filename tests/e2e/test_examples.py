"""Every example runs as a user would: in a process of its own, in an empty folder, without warnings."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from billhook.run_record import Run
from tests.arch.source import ROOT

EXAMPLES = ROOT / "examples"


def run(name: str, folder: Path, *arguments: str) -> str:
    """Return what the example writes on stdout."""
    return _run([sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *arguments], folder)


def _run(program: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        program, cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_is_tested() -> None:
    tested = {
        "demo",
        "own_training_loop",
        "gates_in_your_own_loop",
        "gates_under_lightning",
        "torchvision_model",
        "latency_budget",
        "fusion",
        "reload_in_another_process",
        "sparsity",
        "search",
    }
    assert {p.stem for p in EXAMPLES.glob("*.py")} == tested


@pytest.mark.slow
def test_own_training_loop(tmp_path: Path) -> None:
    lines = dict(line.split(maxsplit=1) for line in run("own_training_loop", tmp_path).splitlines())
    original, pruned, tuned = (float(lines[n].rstrip("%")) for n in ("original", "pruned", "fine-tuned"))
    assert original > 90
    assert tuned > original - 3
    assert tuned >= pruned


def _gated(lines: dict[str, str]) -> None:
    original, gated, tuned = (float(lines[n].rstrip("%")) for n in ("original", "gated", "fine-tuned"))
    assert original > 90
    assert tuned > original - 3
    assert tuned >= gated - 1
    assert lines["kept"].startswith("{")


@pytest.mark.slow
def test_gates_in_your_own_loop(tmp_path: Path) -> None:
    written = run("gates_in_your_own_loop", tmp_path)
    _gated(dict(line.split(maxsplit=1) for line in written.splitlines()))


@pytest.mark.slow
def test_gates_under_lightning(tmp_path: Path) -> None:
    if importlib.util.find_spec("lightning") is None:
        pytest.skip("lightning is not installed")
    # Lightning imports torchvision where it is installed, and uses what torch 2.13 has deprecated.
    start = (
        "import runpy, tests.torchvision_ops as ops; ops.declare(); "
        f"runpy.run_path({str(EXAMPLES / 'gates_under_lightning.py')!r}, run_name='__main__')"
    )
    written = _run([sys.executable, "-c", start], tmp_path)
    _gated(dict(line.split(maxsplit=1) for line in written.splitlines() if not line.startswith("`")))


@pytest.mark.slow
def test_torchvision_model(tmp_path: Path, torchvision: ModuleType) -> None:
    written = run("torchvision_model", tmp_path)
    assert "classifier.1 cannot: model output" in written
    assert "removing equals silencing: True" in written
    assert "output (1, 1000)" in written


@pytest.mark.slow
@pytest.mark.serial
def test_latency_budget(tmp_path: Path) -> None:
    faster = float(run("latency_budget", tmp_path).splitlines()[-1].split("×")[0])
    assert faster > 1.6


@pytest.mark.slow
@pytest.mark.serial
def test_fusion(tmp_path: Path) -> None:
    lines = run("fusion", tmp_path).splitlines()
    assert lines[0] == "shortcut: add_identity at 1.0"
    assert "groups 4 before, 10 after" in lines
    assert sum(line.startswith("shortcuts as ") for line in lines) > 1
    assert float(lines[-1].split("×")[0]) > 1.4


@pytest.mark.slow
def test_reload_in_another_process(tmp_path: Path) -> None:
    _, before, after = run("reload_in_another_process", tmp_path).splitlines()
    assert before.split(maxsplit=1)[1] == after.split(maxsplit=1)[1]


@pytest.mark.slow
def test_demo_on_smaller_data(tmp_path: Path) -> None:
    options = ("--data", "digits", "--batch", "64", "--budget", "macs=0.5", "--name", "small")
    written = run("demo", tmp_path, *options)
    assert "Latency" in written
    results = Run.load(tmp_path / "runs" / "small").results
    assert results.status == "done"
    assert all(b.met for b in results.budget_met)
    assert (tmp_path / "runs/small/report.html").is_file()


@pytest.mark.slow
def test_sparsity(tmp_path: Path) -> None:
    zeros, verified, size = run("sparsity", tmp_path).splitlines()
    assert zeros.startswith("80.0%")
    assert verified == "verified: True"
    dense, stored = (int(part.split(" bytes")[0].replace(",", "")) for part in size.split("dense, "))
    assert stored < 0.4 * dense


@pytest.mark.slow
def test_search(tmp_path: Path) -> None:
    original, found, before, after, macs = run("search", tmp_path).splitlines()
    percent = [float(line.split("%")[0].split()[-1]) for line in (original, found, before, after, macs)]
    assert percent[0] > 90
    assert percent[2] > 50, "a repaired network is no guess"
    assert percent[3] > percent[0] - 3
    assert percent[4] <= 33
