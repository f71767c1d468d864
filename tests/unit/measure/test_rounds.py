from __future__ import annotations

import math
from typing import Any

import pytest

from billhook.errors import InputError
from billhook.measure import QUICK, Timing, compare
from billhook.measure.rounds import Round, ratio_of_rounds, summarise
from billhook.results import Measurement


def _round(median: float, **other: Any) -> Round:
    values = {
        "minimum": median / 2,
        "maximum": median * 9,
        "wall_median": 2 * median,
        "runs": 10,
        "core_share": 0.5,
    }
    return Round(median, **{**values, **other})


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounds": 0},
        {"rounds": 2.5},
        {"threads": 0},
        {"threads": True},
        {"batch": 0},
        {"seconds_per_round": 0.0},
        {"seconds_per_round": math.nan},
        {"warmup": -1.0},
        {"timeout": math.inf},
    ],
)
def test_a_senseless_timing_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Timing(**wrong)


def test_searches_time_shorter_than_reports() -> None:
    assert QUICK.rounds * QUICK.seconds_per_round < Timing().rounds * Timing().seconds_per_round / 5
    assert QUICK.rounds >= 7


def test_one_thread_is_timed_on_the_core_and_several_on_the_wall() -> None:
    assert Timing().clock == "core"
    assert Timing(threads=2).clock == "wall"


def test_a_summary_is_the_median_of_the_rounds_with_their_extremes() -> None:
    m = summarise([_round(3.0), _round(1.0), _round(2.0)], "core", {"runtime": "toy"})
    assert (m.value, m.unit, m.repetitions, m.minimum, m.maximum) == (2.0, "s", 3, 1.0, 3.0)
    assert m.conditions["runtime"] == "toy"
    assert m.conditions["runs"] == 30
    assert m.conditions["fastest_run_s"] == 0.5
    assert m.conditions["wall_median_s"] == 4.0
    assert m.conditions["clock"] == "time on the core"


def test_a_comparison_has_the_ratios_of_medians_and_of_minima() -> None:
    slow = summarise([_round(4.0)], "core", {})
    fast = summarise([_round(1.0, minimum=0.9)], "core", {})
    same, faster = compare([slow, fast], slow)
    assert (same.medians, same.minima, same.wall_medians) == (1.0, 1.0, 1.0)
    assert faster.medians == 0.25
    assert faster.minima == 0.45
    assert faster.speedup == 4.0


def test_only_latencies_can_be_compared() -> None:
    with pytest.raises(InputError, match="not a latency"):
        compare([Measurement(5.0, "B")], summarise([_round(1.0)], "core", {}))


def test_a_machine_that_slows_down_half_way_does_not_change_the_ratio() -> None:
    speed = [1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 3.0]
    candidate, original = [_round(0.5 * s) for s in speed], [_round(s) for s in speed]
    candidate[2] = _round(40.0)
    assert ratio_of_rounds(candidate, original) == 0.5
