"""Numbers with units: read what people write ("8ms", "1.5M", "2 MB", "50%"), write what people read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from billhook.errors import InputError

_SCALES: dict[str, dict[str, float]] = {
    "count": {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12},
    "bytes": {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30},
    "seconds": {"s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9},
}
_NUMBER = re.compile(r"^\s*([0-9]*\.?[0-9]+(?:e[-+]?[0-9]+)?)\s*([a-zµ%]*)\s*$", re.IGNORECASE)


def parse_quantity(text: str, dimension: str) -> float:
    """Return `text` in base units of `dimension` ("count", "bytes" or "seconds").

    Raises:
        InputError: if the number or the unit is not understood; names the allowed units.
    """
    match = _NUMBER.match(text)
    scales = _SCALES[dimension]
    if match is None or match[2].lower() not in scales:
        units = ", ".join(u or "(none)" for u in scales)
        raise InputError(f"cannot read {text!r} as {dimension}; write a number with one of: {units}")
    return float(match[1]) * scales[match[2].lower()]


def parse_ratio(text: str) -> float | None:
    """Return a fraction for "0.5" or "50%", None if `text` is not a ratio."""
    match = _NUMBER.match(text)
    if match is None or match[2] not in ("", "%"):
        return None
    value = float(match[1]) / (100 if match[2] == "%" else 1)
    return value if value <= 1 else None


def format_count(value: float) -> str:
    """Return e.g. "4.09 G", "25.6 M", "930"."""
    return _scaled(value, ((1, ""), (1e3, " k"), (1e6, " M"), (1e9, " G"), (1e12, " T")))


def format_bytes(value: float) -> str:
    """Return e.g. "102 MB", "1.20 kB", "930 B"."""
    return _scaled(value, ((1, " B"), (1e3, " kB"), (1e6, " MB"), (1e9, " GB"), (1e12, " TB")))


def format_seconds(value: float) -> str:
    """Return e.g. "8.12 ms", "1.30 s", "640 µs"."""
    return _scaled(value, ((1e-9, " ns"), (1e-6, " µs"), (1e-3, " ms"), (1, " s")))


def _scaled(value: float, scales: Sequence[tuple[float, str]]) -> str:
    """Return `value` with three significant digits in the largest unit that keeps it at 1 or above."""
    # 999.6 would be written as 1000: such values belong to the next unit already.
    scale, suffix = next((s for s in reversed(scales) if abs(value) >= 0.9995 * s[0]), scales[0])
    number = value / scale
    if scale == 1 and number == round(number):
        return f"{number:.0f}{suffix}"
    digits = max(0, 2 - math.floor(math.log10(abs(number) * 1.0005))) if number else 0
    return f"{number:.{digits}f}{suffix}"
