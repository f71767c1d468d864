"""Numbers with units: read what people write ("8ms", "1.5M", "2 MB", "50%"), write what people read."""

from __future__ import annotations

import re

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
    for scale, suffix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= scale:
            return f"{value / scale:.3g}{suffix}"
    return f"{value:.4g}"


def format_bytes(value: float) -> str:
    """Return e.g. "102 MB", "1.2 kB"."""
    return f"{format_count(value)}B" if abs(value) >= 1e3 else f"{value:.0f} B"


def format_seconds(value: float) -> str:
    """Return e.g. "8.12 ms", "1.3 s", "640 µs"."""
    for scale, suffix in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {suffix}"
    return f"{value / 1e-9:.3g} ns"
