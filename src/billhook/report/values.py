"""Numbers of a report in words: one place decides how a value, its spread and a change are written.

All functions are pure. Texts that come from files may be hostile; `printable` makes them harmless for a
terminal, the HTML template escapes them itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from billhook.results import Measurement
from billhook.run_record import Row
from billhook.units import format_bytes, format_count, format_seconds

Tone = Literal["good", "bad", "even"]

TITLES: dict[str, str] = {
    "latency": "Latency",
    "throughput": "Throughput",
    "accuracy": "Accuracy",
    "size": "File size",
    "size_gzip": "File size after gzip",
    "stored": "Stored weights",
    "stored_gzip": "Stored weights after gzip",
    "bytes": "Weights in memory",
    "encoded": "Weights, encoded",
    "macs": "MACs",
    "params": "Parameters",
    "peak_activation_bytes": "Peak activations",
    "peak_rss": "Peak process memory",
}

BOUND_DIMENSIONS = {"latency": "seconds", "size": "bytes"}  # what is not here is a count
_COMPARATIVES = {  # (what a smaller value is, what a larger one is)
    "latency": ("faster", "slower"),
    "throughput": ("lower", "higher"),
    "macs": ("fewer", "more"),
    "params": ("fewer", "more"),
}
_WRITERS: dict[str, Callable[[float], str]] = {
    "s": format_seconds,
    "B": format_bytes,
    "": format_count,
    "count": format_count,
}
_MAX_DEPTH = 3


def format_value(value: float, unit: str) -> str:
    """Return a number with its unit: "8.12 ms", "360 kB", "1.2 M", "91.32 %" for fractions (unit "1")."""
    if unit == "1":
        return f"{100 * value:.2f} %"
    if unit in _WRITERS:
        return _WRITERS[unit](value)
    return f"{format_count(value)} {printable(unit)}"


def format_spread(measurement: Measurement) -> str:
    """Return e.g. "7.98–8.91 ms, median of 50", "" for a single value without a range."""
    parts = []
    if measurement.minimum is not None and measurement.maximum is not None:
        low, high = (format_value(v, measurement.unit) for v in (measurement.minimum, measurement.maximum))
        number, _, unit = low.rpartition(" ")
        same_unit = bool(number) and high.endswith(f" {unit}")
        parts.append(f"{number}–{high}" if same_unit else f"{low} – {high}")
    if measurement.repetitions > 1:
        parts.append(f"median of {measurement.repetitions:,}")
    return ", ".join(parts)


def format_relative_spread(measurement: Measurement) -> str:
    """Return half the range relative to the median, e.g. "± 5.7 %"; "" if there is no range."""
    if measurement.minimum is None or measurement.maximum is None:
        return ""
    return f"± {100 * measurement.spread:.1f} %"


def format_bound(metric: str, value: float) -> str:
    """Return a budget's value in its metric's unit."""
    return format_value(value, {"seconds": "s", "bytes": "B"}.get(BOUND_DIMENSIONS.get(metric, ""), ""))


def format_factor(factor: float) -> str:
    """Return e.g. "2.31×", "12.4×", "310×"."""
    digits = 2 if factor < 10 else 1 if factor < 100 else 0
    return f"{factor:,.{digits}f}×"


def format_points(difference: float) -> str:
    """Return a difference of fractions in percentage points, with a real minus sign."""
    text = f"{100 * difference:+.2f}"
    return ("0.00" if float(text) == 0 else text.replace("-", "−")) + " points"


def change(row: Row, factor: float | None = None) -> tuple[str, Tone]:
    """Return a change in words and whether it is an improvement: ("2.31× faster", "good").

    Args:
        row: The metric before and after.
        factor: Before ÷ after where it was measured better than by dividing the two values (latency).
    """
    if row.before.unit == "1":
        difference = row.after.value - row.before.value
        text = format_points(difference)
        rises: Tone = "good" if row.better == "higher" else "bad"
        falls: Tone = "bad" if row.better == "higher" else "good"
        return text, "even" if text.startswith("0.00") else rises if difference > 0 else falls
    if factor is None:
        if row.before.value <= 0 or row.after.value <= 0:
            return "–", "even"
        factor = row.before.value / row.after.value
    shrinks = factor >= 1
    if not factor > 0 or not math.isfinite(factor):
        return "–", "even"
    size = format_factor(factor if shrinks else 1 / factor)
    if size == "1.00×":
        return "unchanged", "even"
    smaller, larger = _COMPARATIVES.get(row.metric, ("smaller", "larger"))
    improves: Tone = "good" if shrinks == (row.better == "lower") else "bad"
    return f"{size} {smaller if shrinks else larger}", "even" if _overlap(row) else improves


def _overlap(row: Row) -> bool:
    """Tell if the samples of before and after overlap, so that the difference may be noise."""
    ends = (row.before.minimum, row.before.maximum, row.after.minimum, row.after.maximum)
    if ends[0] is None or ends[1] is None or ends[2] is None or ends[3] is None:
        return False
    return ends[0] <= ends[3] and ends[2] <= ends[1]


def flatten(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return nested settings as ("outer.inner", text) pairs, for tables of two columns.

    Lists become comma-separated text; a number whose name ends in "_s" or "_bytes" is written with that unit.
    What lies deeper than three levels is abbreviated.
    """
    return _flatten("", table, _MAX_DEPTH) if table else []


def _flatten(prefix: str, value: Any, depth: int) -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and depth > 0 and value:
        pairs = []
        for key, inner in value.items():
            pairs += _flatten(f"{prefix}.{key}" if prefix else str(key), inner, depth - 1)
        return pairs
    for suffix, unit in (("_s", "s"), ("_bytes", "B")):
        if prefix.endswith(suffix) and isinstance(value, (int, float)) and not isinstance(value, bool):
            return [(_words(prefix.removesuffix(suffix)), format_value(value, unit))]
    return [(_words(prefix), _text(value, depth))]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(value: Any, depth: int) -> str:
    if isinstance(value, (Mapping, list, tuple)):
        if not value:
            return "–"
        if depth <= 0:
            return "…"
        if isinstance(value, Mapping):
            return ", ".join(f"{k}: {_text(v, depth - 1)}" for k, v in value.items())
        return ", ".join(_text(v, depth - 1) for v in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None or value == "" else f"{value:g}" if isinstance(value, float) else str(value)


def printable(text: str) -> str:
    """Return `text` with control, bidirectional and other invisible characters written as escapes.

    A name in a file can hold terminal escape sequences; printed as they are, they could hide or fake lines.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
