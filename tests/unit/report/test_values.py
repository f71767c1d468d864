from __future__ import annotations

import pytest

from billhook.report.values import (
    change,
    flatten,
    format_factor,
    format_points,
    format_relative_spread,
    format_spread,
    format_value,
    printable,
)
from billhook.results import Measurement
from billhook.run_record import Row


def row(
    metric: str, before: float, after: float, unit: str = "", better: str = "lower", spread: float = 0.0
) -> Row:
    def measured(value: float) -> Measurement:
        ends = (value - spread, value + spread) if spread else (None, None)
        return Measurement(value, unit, 10, *ends)

    return Row(metric, measured(before), measured(after), better)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00812, "s", "8.12 ms"),
        (361200, "B", "361 kB"),
        (126.2e6, "", "126 M"),
        (0.93125, "1", "93.12 %"),
        (288.1, "samples/s", "288 samples/s"),
    ],
)
def test_a_value_is_written_with_its_unit(value: float, unit: str, text: str) -> None:
    assert format_value(value, unit) == text


@pytest.mark.parametrize(
    ("measurement", "text"),
    [
        (Measurement(0.008, "s", 50, 0.0078, 0.0091), "7.80–9.10 ms, median of 50"),
        (Measurement(0.001, "s", 50, 0.0009, 0.0011), "900 µs – 1.10 ms, median of 50"),
        (Measurement(3, "", 2, 2, 4), "2 – 4, median of 2"),
        (Measurement(0.9, "1"), ""),
    ],
)
def test_a_range_names_its_unit_once_where_it_can(measurement: Measurement, text: str) -> None:
    assert format_spread(measurement) == text


def test_a_single_value_has_no_spread() -> None:
    assert format_relative_spread(Measurement(1.0, "s")) == ""
    assert format_relative_spread(Measurement(2.0, "s", 5, 1.8, 2.2)) == "± 10.0 %"


@pytest.mark.parametrize(("factor", "text"), [(2.314, "2.31×"), (12.44, "12.4×"), (3100.4, "3,100×")])
def test_a_factor_keeps_three_digits(factor: float, text: str) -> None:
    assert format_factor(factor) == text


@pytest.mark.parametrize(
    ("difference", "text"), [(-0.0044, "−0.44 points"), (0.01, "+1.00 points"), (-1e-6, "0.00 points")]
)
def test_points_have_a_real_minus_and_no_negative_zero(difference: float, text: str) -> None:
    assert format_points(difference) == text


@pytest.mark.parametrize(
    ("of", "factor", "expected"),
    [
        (row("latency", 0.008, 0.004, "s"), 2.31, ("2.31× faster", "good")),
        (row("latency", 0.004, 0.008, "s"), None, ("2.00× slower", "bad")),
        (row("throughput", 100, 250, "samples/s", "higher"), None, ("2.50× higher", "good")),
        (row("throughput", 250, 100, "samples/s", "higher"), None, ("2.50× lower", "bad")),
        (row("macs", 100, 40), None, ("2.50× fewer", "good")),
        (row("size", 100, 100, "B"), None, ("unchanged", "even")),
        (row("size", 100, 0, "B"), None, ("–", "even")),
        (row("accuracy", 0.93, 0.92, "1", "higher"), None, ("−1.00 points", "bad")),
        (row("accuracy", 0.93, 0.93, "1", "higher"), None, ("0.00 points", "even")),
        (row("accuracy", 0.93, 0.94, "1", "higher"), None, ("+1.00 points", "good")),
    ],
)
def test_a_change_says_how_much_and_whether_it_is_better(
    of: Row, factor: float | None, expected: tuple[str, str]
) -> None:
    assert change(of, factor) == expected


def test_a_change_within_the_spread_is_neither_good_nor_bad() -> None:
    assert change(row("peak_rss", 81.2e6, 82.0e6, "B", spread=1e6)) == ("1.01× larger", "even")
    assert change(row("peak_rss", 81.2e6, 82.0e6, "B", spread=1e5)) == ("1.01× larger", "bad")


def test_settings_become_pairs_of_words() -> None:
    table = {
        "cpu": {"name": "x", "memory_bytes": 8e9},
        "fastest_run_s": 0.002,
        "pinned": True,
        "seeds": [1, 2],
    }
    assert flatten(table) == [
        ("cpu.name", "x"),
        ("cpu.memory", "8.00 GB"),
        ("fastest run", "2.00 ms"),
        ("pinned", "yes"),
        ("seeds", "1, 2"),
    ]
    assert flatten({}) == []
    assert flatten({"empty": {}, "none": None}) == [("empty", "–"), ("none", "–")]


def test_settings_that_nest_without_end_are_cut() -> None:
    nested: dict[str, object] = {"end": 1}
    for _ in range(40):
        nested = {"a": nested}
    assert flatten(nested) == [("a.a.a", "…")]


@pytest.mark.parametrize(
    ("text", "harmless"),
    [
        ("conv1.weight", "conv1.weight"),
        ("größe 層", "größe 層"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("two\nlines", "two\\nlines"),
        ("\u202eevil", "\\u202eevil"),
        ("\ud800", "\\ud800"),
    ],
)
def test_names_cannot_command_the_terminal(text: str, harmless: str) -> None:
    assert printable(text) == harmless
