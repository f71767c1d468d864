"""`billhook compile`: what it writes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from billhook.measure import Artifact
from tests.e2e.conftest import NETS, Billhook

NET = ("compile", f"{NETS}:residual", "--input", "1x1x8x8")
WORDS = ("compile", f"{NETS}:branches", "--input", "image=1x3x8x8", "--input", "words=1x4:int64")

pytestmark = pytest.mark.usefixtures("engine")


def test_a_network_is_compiled_and_measured(billhook: Billhook) -> None:
    outcome = billhook(*NET, "--out", "net", "--json")
    assert outcome.code == 0, outcome.stderr
    data = outcome.data
    assert (data["target"], data["directory"], data["artifact"]) == ("native", "net", "net")
    assert set(data["files"]) == {"manifest.json", "model.bhk", "libbillhook.so", "billhook.h"}
    assert data["bytes"] == sum(data["files"].values())
    assert data["parity"]["max_rel_error"] < 1e-5
    outcome = billhook("measure", "net", "--rounds", "2", "--seconds", "0.02", "--json", "--quiet")
    assert outcome.code == 0, outcome.stderr

    outcome = billhook(*NET, "--out", "net")
    assert outcome.code == 1
    assert "is never overwritten" in outcome.stderr


@pytest.mark.parametrize("command", [("compile",), ("export", "--backend", "billhook"), ("export",)])
def test_int8_is_calibrated_on_the_data_set(billhook: Billhook, command: tuple[str, ...]) -> None:
    network = (*command[:1], f"{NETS}:residual", *command[1:], "--precision", "int8", "--output", "net")
    outcome = billhook(
        *network, "--data", "digits", "--calibration", "minmax", "--calibration-images", 64, "--json"
    )
    assert outcome.code == 0, outcome.stderr
    assert outcome.data["precision"] == "int8"
    assert outcome.data["parity"]["sqnr"] > 20
    assert "signal to noise" in outcome.stderr

    outcome = billhook(*network, "--input", "1x1x8x8")
    assert outcome.code == 2
    assert "int8 needs images to find the ranges of values on: give --data" in outcome.stderr


def test_sources_say_how_they_are_built(billhook: Billhook, tmp_path: Path) -> None:
    outcome = billhook(*NET, "--out", "net", "--target", "c")
    assert outcome.code == 0, outcome.stderr
    assert "cmake -S net -B build && cmake --build build" in outcome.stdout
    assert Artifact.load(tmp_path / "net" / "model").manifest.backend == "billhook"
    assert "NETWORK_INPUT_0_SHAPE {1, 8, 8}" in (tmp_path / "net" / "network.h").read_text()


def test_a_network_that_the_engine_lacks_is_refused(billhook: Billhook, tmp_path: Path) -> None:
    outcome = billhook(*WORDS, "--out", "net")
    assert outcome.code == 1
    assert "embedding" in outcome.stderr
    assert "billhook's engine cannot run this network" in outcome.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_target_is_wrong_usage(billhook: Billhook, tmp_path: Path) -> None:
    outcome = billhook(*NET, "--out", "net", "--target", "aarch65")
    assert outcome.code == 2
    assert "unknown target 'aarch65'; did you mean 'aarch64'?" in outcome.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_missing_compiler_is_said(
    billhook: Billhook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("CC", "/no/compiler")
    outcome = billhook(*NET, "--out", "net", "--target", "x86-64-v3")
    assert outcome.code == 1
    assert "building the engine for x86-64-v3 needs /no/compiler, which is not there" in outcome.stderr
    assert list(tmp_path.iterdir()) == []
