from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from billhook.errors import MeasureError
from billhook.measure import LatencyRig, LatencySample, Timing
from tests.unit.measure.toy_backend import registered, toy

pytestmark = pytest.mark.serial

SHORT = Timing(rounds=3, seconds_per_round=0.03, warmup=0.01)


@pytest.fixture(autouse=True)
def _toy_backend() -> Iterator[None]:
    with registered():
        yield


def test_candidates_are_timed_against_one_warm_original(tmp_path: Path) -> None:
    original = toy(tmp_path / "original", size=64, work=40)
    light, heavy = toy(tmp_path / "light", size=64, work=4), toy(tmp_path / "heavy", size=64, work=400)
    with LatencyRig(original, SHORT) as rig:
        worker = rig._worker
        fast, slow = rig.relative_latency(light), rig.relative_latency(heavy)
        assert rig._worker is worker
    assert fast.ratio < 0.6 < 2 < slow.ratio
    assert fast.candidate < fast.original
    assert fast.ratio == pytest.approx(fast.candidate / fast.original)


def test_a_failing_candidate_leaves_the_rig_working(tmp_path: Path) -> None:
    with LatencyRig(toy(tmp_path / "original"), SHORT) as rig:
        with pytest.raises(MeasureError, match="'broken'"):
            rig.relative_latency(toy(tmp_path / "broken", fault="exit"))
        assert rig.relative_latency(toy(tmp_path / "fine")).candidate > 0


def test_threads_and_batch_size_stay_those_of_the_original(tmp_path: Path) -> None:
    fixed = toy(tmp_path / "fixed", batch=2, dynamic=False)
    with LatencyRig(fixed, Timing(1, 0.01, 0.0, batch=2)) as rig:
        sample = rig.relative_latency(fixed, Timing(2, 0.01, 0.0, batch=1, threads=2))
    assert sample.candidate > 0


def test_a_rig_times_only_inside_its_with_block(tmp_path: Path) -> None:
    original = toy(tmp_path / "original")
    rig = LatencyRig(original, SHORT)
    with pytest.raises(MeasureError, match="with block"):
        rig.relative_latency(original)


def test_the_ratio_of_a_sample() -> None:
    assert LatencySample(candidate=1.0, original=4.0).ratio == 0.25
