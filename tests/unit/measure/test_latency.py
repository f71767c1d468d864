from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from billhook.errors import InputError
from billhook.measure import Timing, latency, profile
from billhook.results import Measurement
from tests.unit.measure.toy_backend import registered, toy

pytestmark = pytest.mark.serial

SHORT = Timing(rounds=3, seconds_per_round=0.03, warmup=0.01)


@pytest.fixture(autouse=True)
def _toy_backend() -> Iterator[None]:
    with registered():
        yield


def test_more_work_takes_longer_and_the_conditions_tell_how_it_was_measured(tmp_path: Path) -> None:
    light = toy(tmp_path / "light", size=64, work=4)
    heavy = toy(tmp_path / "heavy", size=64, work=80)
    fast, slow = latency([light, heavy], rounds=3, seconds_per_round=0.03, warmup=0.01)
    assert slow.value > 3 * fast.value > 0
    assert fast.unit == "s"
    assert fast.repetitions == 3
    assert fast.minimum is not None
    assert fast.maximum is not None
    assert fast.minimum <= fast.value <= fast.maximum
    for name in ("runtime", "threads", "batch", "pinned", "probe_s", "probe_spread", "clock", "machine"):
        assert name in fast.conditions
    assert Measurement.from_dict(json.loads(json.dumps(fast.to_dict()))) == fast


def test_the_baseline_comes_first_and_all_know_their_ratio_to_it(tmp_path: Path) -> None:
    original, small = toy(tmp_path / "original", size=64, work=60), toy(tmp_path / "small", size=64, work=3)
    found = profile([small], SHORT, against=original)
    base, ours = (p.latency for p in found)
    assert [p.latency.conditions["artifact"] for p in found] == ["original", "small"]
    assert base.conditions["ratio_of_medians"] == 1.0
    assert ours.conditions["ratio_of_medians"] == pytest.approx(ours.value / base.value)
    assert ours.conditions["ratio_of_medians"] < 0.5
    assert ours.conditions["ratio_of_minima"] < 0.5
    assert ours.conditions["against"] == "original"


def test_a_profile_has_throughput_and_memory(tmp_path: Path) -> None:
    megabytes = 4000 * 4000 * 4 / 1e6
    (found,) = profile([toy(tmp_path / "net", size=4000, work=0)], Timing(2, 0.01, 0.0, batch=5))
    assert found.throughput.unit == "samples/s"
    assert found.throughput.value == pytest.approx(5 / found.latency.value)
    assert found.throughput.minimum <= found.throughput.value <= found.throughput.maximum  # type: ignore[operator]
    assert found.memory.unit == "B"
    assert megabytes / 2 < found.memory.value / 1e6 < 3 * megabytes


def test_wrong_requests_fail_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to time"):
        latency([])
    with pytest.raises(InputError, match="rounds"):
        latency([toy(tmp_path / "net")], rounds=0)
    with pytest.raises(InputError, match="fixed batch size 4"):
        latency([toy(tmp_path / "fixed", batch=4, dynamic=False)])


def test_an_unsteady_machine_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # The package's attribute of that name is the function.
    monkeypatch.setattr(importlib.import_module("billhook.measure.latency"), "BUSY_SPREAD", -1.0)
    with caplog.at_level(logging.WARNING, "billhook"):
        profile([toy(tmp_path / "net")], Timing(1, 0.01, 0.0))
    assert "changed its speed" in caplog.text
