"""Latency of the networks that the methods chose, beside the dense one, all in turns."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._methods_run import TORCH_PRUNING, fresh, rebuilt
from benchmarks._training import example
from billhook.deploy import export
from billhook.measure import compare, latency

AT_ONCE = 11  # networks in one interleaved run, beside the dense one


def measure(runs: Sequence[dict[str, Any]], folder: Path, results: Path) -> None:
    """Time the networks of seed 0 that were not timed yet; one row each, as soon as it is known.

    Widths decide about latency, not weights, so random ones will do.
    """
    known = set()
    if results.exists():
        known = {
            (r["network"], r["macs"], r["row"]) for r in map(json.loads, results.read_text().splitlines())
        }
    wanted: dict[str, list[tuple[float, str]]] = {}
    for run in runs:
        key = (run["network"], run["macs"], run["row"])
        own = run["macs"] < 1 and not run["method"].startswith(TORCH_PRUNING)  # the others left no plan
        if run["seed"] == 0 and own and key not in known:
            wanted.setdefault(run["network"], []).append(key[1:])
    for network, entries in wanted.items():
        for start in range(0, len(entries), AT_ONCE):
            _measure(network, entries[start : start + AT_ONCE], folder, results)


def _measure(network: str, entries: Sequence[tuple[float, str]], folder: Path, results: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        models = [fresh(network, 0), *(rebuilt(folder, network, macs, row, 0) for macs, row in entries)]
        artifacts = [export(m, example(), Path(place) / str(i)) for i, m in enumerate(models)]
        times = latency(artifacts, rounds=7, seconds_per_round=0.1)
        ratios = compare(times, times[0])[1:]
    with results.open("a") as stream:
        for (macs, row), ratio, time in zip(entries, ratios, times[1:], strict=True):
            record = {
                "network": network,
                "macs": macs,
                "row": row,
                "speed_up": 1 / ratio.medians,
                "latency": time.to_dict(),
            }
            stream.write(json.dumps(record) + "\n")
