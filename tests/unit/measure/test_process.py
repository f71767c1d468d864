from __future__ import annotations

import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

import billhook
from billhook.errors import MeasureError, MissingExtraError
from billhook.measure import Artifact
from billhook.measure.process import WorkerProcess
from tests.unit.measure import toy_backend
from tests.unit.measure.toy_backend import ToyBackend, registered, toy


@pytest.fixture(autouse=True)
def _toy_backend() -> Iterator[None]:
    with registered():
        yield


def _open(artifact: Artifact, timeout: float = 60.0) -> None:
    with WorkerProcess(artifact.name, timeout=timeout) as worker:
        worker.open(artifact, [], 1, None)
        worker.round(0.01, "core")


def test_a_worker_that_dies_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match=r"timing 'broken'.*ended with status 7; it said:\nthe toy broke"):
        _open(toy(tmp_path / "broken", fault="exit"))


def test_a_worker_that_does_not_answer_is_ended(tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match="timing 'stuck': no answer within 2 s"):
        _open(toy(tmp_path / "stuck", fault="hang"), timeout=2.0)


def test_an_error_in_the_runtime_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match="timing 'net': ValueError: the toy refuses"):
        _open(toy(tmp_path / "net", fault="raise"))


def test_a_missing_library_is_reported_with_its_extra(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"'toylib', which is not installed.*billhook\[toy\]"):
        _open(toy(tmp_path / "net", fault="missing"))


def test_what_a_runtime_prints_does_not_disturb(tmp_path: Path) -> None:
    _open(toy(tmp_path / "net", fault="print"))


def test_a_backend_that_only_the_script_knows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy_backend.ToyBackend, "__module__", "__main__")
    assert ToyBackend.__module__ == "__main__"
    with pytest.raises(MeasureError, match="put it into a module"):
        _open(toy(tmp_path / "net"))


def test_a_closed_worker_says_so(tmp_path: Path) -> None:
    worker = WorkerProcess("net")
    worker.close()
    worker.close()
    with pytest.raises(MeasureError, match="timing 'net': its process ended"):
        worker.probe([])


def test_a_worker_runs_in_another_environment(tmp_path: Path) -> None:
    venv.create(tmp_path / "env", symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    without_numpy = WorkerProcess(
        "net", interpreter=str(python), path=[str(Path(billhook.__file__).parents[1])]
    )
    with without_numpy, pytest.raises(MeasureError, match="No module named 'numpy'"):
        without_numpy.probe([])
    with WorkerProcess("net", interpreter=str(python), path=sys.path) as worker:
        worker.probe([])
