"""Time both exported networks, in turns, in the runtime that would be shipped."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from billhook.graph.storage import write_tensors
from billhook.measure import Profile, Timing, compressed_size, profile, size
from billhook.measure.size import stored_size
from billhook.pipeline.work import WEIGHTS, Work
from billhook.units import format_seconds


def run(work: Work) -> dict[str, Any]:
    """Return latency, throughput, memory and sizes of both, and the ratio of their latencies."""
    original, compressed = work.artifacts
    wanted = work.recipe.measure
    timing = Timing(
        rounds=wanted.rounds,
        seconds_per_round=wanted.seconds_per_round,
        threads=wanted.threads,
        batch=wanted.batch,
    )
    before, after = profile([compressed], timing, against=original)
    ratio = {
        "median": 1 / after.latency.conditions["ratio_of_medians"],
        "minimum": 1 / after.latency.conditions["ratio_of_minima"],
    }
    return {
        "before": {
            **_plain(before),
            "size": size(original).to_dict(),
            "gzip": compressed_size(original).to_dict(),
            **_stored_original(work),
        },
        "after": {
            **_plain(after),
            "size": size(compressed).to_dict(),
            "gzip": compressed_size(compressed).to_dict(),
            **_stored(work.directory.file(WEIGHTS)),
        },
        "ratio": ratio,
        "summary": (
            f"{format_seconds(before.latency.value)} → {format_seconds(after.latency.value)}, "
            f"{ratio['median']:.2f}× faster"
        ),
    }


def _stored_original(work: Work) -> dict[str, Any]:
    """Return what the original's weights take in the same kind of file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / WEIGHTS
        write_tensors(path, work.original)
        return _stored(path)


def _stored(path: Path) -> dict[str, Any]:
    plain, packed = stored_size(path)
    return {"stored": plain.to_dict(), "stored_gzip": packed.to_dict()}


def _plain(measured: Profile) -> dict[str, Any]:
    return {
        "latency": measured.latency.to_dict(),
        "throughput": measured.throughput.to_dict(),
        "peak_rss": measured.memory.to_dict(),
    }
