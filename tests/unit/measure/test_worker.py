from __future__ import annotations

import itertools
import time

import pytest

from billhook.measure.worker import Worker, time_round


def test_a_round_runs_for_its_time_and_once_before_it() -> None:
    calls = []
    found = time_round(lambda: calls.append(0), 0.02, "wall")
    assert len(calls) == found["runs"] + 1
    assert found["runs"] > 100
    assert found["minimum"] <= found["median"] <= found["maximum"]


def test_a_round_shorter_than_one_run_still_has_one() -> None:
    found = time_round(lambda: time.sleep(0.01), 1e-9, "wall")
    assert found["runs"] == 1
    assert found["median"] >= 0.01


def test_time_on_the_core_leaves_out_waiting() -> None:
    found = time_round(lambda: time.sleep(0.01), 0.03, "core")
    assert found["median"] < 0.005
    assert found["wall_median"] >= 0.01
    assert found["core_share"] < 0.5


def test_the_probe_needs_no_artifact() -> None:
    worker = Worker()
    worker.answer({"op": "probe", "cores": []})
    assert worker.answer({"op": "round", "seconds": 0.01, "clock": "core"})["runs"] >= 1


def test_a_processor_clock_that_stands_still_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = itertools.chain([0.0, 0.0, 0.0, 0.01], itertools.count(1.0, 0.01))
    monkeypatch.setattr(time, "process_time", lambda: next(readings))
    found = time_round(lambda: time.sleep(0.01), 0.035, "core")
    assert found["minimum"] == pytest.approx(0.01)
