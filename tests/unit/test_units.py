from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billhook.errors import InputError
from billhook.units import format_bytes, format_count, format_seconds, parse_quantity, parse_ratio


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("8ms", "seconds", 0.008),
        ("1.5 us", "seconds", 1.5e-6),
        ("2s", "seconds", 2.0),
        ("1M", "count", 1e6),
        ("250", "count", 250.0),
        ("1e6", "count", 1e6),
        ("2MB", "bytes", 2e6),
        ("2 MiB", "bytes", 2 * 2**20),
    ],
)
def test_what_people_write_is_read(text: str, dimension: str, value: float) -> None:
    assert parse_quantity(text, dimension) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "fast", "8 parsecs", "-3ms", "nan", "1..5s"])
def test_what_cannot_be_read_names_the_units(text: str) -> None:
    with pytest.raises(InputError, match="ms"):
        parse_quantity(text, "seconds")


@pytest.mark.parametrize(
    ("text", "value"), [("0.5", 0.5), ("50%", 0.5), ("100%", 1.0), ("1", 1.0), ("8ms", None), ("1.5", None)]
)
def test_ratios_are_told_from_quantities(text: str, value: float | None) -> None:
    assert parse_ratio(text) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (930, "930"), (999_600, "1.00 M"), (4.0892e9, "4.09 G"), (25_557_032, "25.6 M")],
)
def test_counts_have_three_digits(value: float, text: str) -> None:
    assert format_count(value) == text


def test_bytes_and_seconds() -> None:
    assert [format_bytes(v) for v in (12, 82_000_000)] == ["12 B", "82.0 MB"]
    assert [format_seconds(v) for v in (0.00812, 0.99999, 6.4e-4)] == ["8.12 ms", "1.00 s", "640 µs"]


@given(st.floats(min_value=1e-6, max_value=999))
def test_a_written_time_reads_back(seconds: float) -> None:
    assert parse_quantity(format_seconds(seconds), "seconds") == pytest.approx(seconds, rel=6e-3)
