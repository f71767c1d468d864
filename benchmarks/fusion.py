#!/usr/bin/env python3
"""Pruning with and without fusion, under the same bounds on latency, criterion and training.

    python benchmarks/fusion.py                 # two processes, goes on where it stopped
    python benchmarks/fusion.py --quick         # two rows, short training, into a temporary folder
    python benchmarks/fusion.py --tables        # tables from the runs there are

Fashion-MNIST, ResNet-20 and ResNet-56 (stem stride 2, shortcuts that pad with zeros), bounds of 60 % and 40 %
of the dense network's latency, measured in ONNX Runtime and in OpenVINO (float32, one thread, batch 1).
Every row begins with the same trained network, judges units by Taylor on the same 512 images, and trains two
epochs. Latency is measured at the end, all rows of a network and a runtime in turns. Each run is a line of
benchmarks/results/fusion_runs.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks._fusion_measure import measure_forms, measure_latency, measure_speed  # noqa: E402
from benchmarks._fusion_run import NETWORKS, Task, run  # noqa: E402
from benchmarks._fusion_table import write_tables  # noqa: E402
from benchmarks._pool import carry_out, read  # noqa: E402
from benchmarks._training import Protocol  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
RUNS, LATENCY = RESULTS / "fusion_runs.jsonl", RESULTS / "fusion_latency.jsonl"
FORMS, SPEED = RESULTS / "fusion_forms.jsonl", RESULTS / "fusion_speed.jsonl"
CACHE = ROOT / ".cache" / "fusion"
BOUNDS, BACKENDS = (0.6, 0.4), ("onnxruntime", "openvino")

TAYLOR = {"criterion": "taylor"}
WHOLE = {"allocator": "efficient", "allocator_options": {"branches": False}}
LEAVE = {"allocator": "efficient"}
ROWS: tuple[tuple[str, str, dict[str, Any], bool], ...] = (
    ("groups", "one_shot", {"options": TAYLOR}, False),
    ("groups, uniform widths", "one_shot", {"options": {**TAYLOR, "allocator": "uniform"}}, False),
    ("groups, shared out by cost", "one_shot", {"options": {**TAYLOR, **WHOLE}}, False),
    ("groups, blocks may leave", "one_shot", {"options": {**TAYLOR, **LEAVE}}, False),
    ("fused", "one_shot", {"options": {**TAYLOR, **LEAVE}}, True),
    ("fused, dynamic", "fupruner", {"options": {**TAYLOR, **LEAVE}}, True),
)
QUICK = ("groups", "fused")


def tasks(seeds: int, only: tuple[str, ...] = ()) -> Iterator[Task]:
    """Yield all runs, one seed after the other."""
    for seed in range(seeds):
        for network in NETWORKS:
            yield Task(network, seed=seed)
        for latency in BOUNDS:
            for network in NETWORKS:
                for backend in BACKENDS:
                    for row, method, settings, fused in ROWS:
                        if not only or row in only:
                            yield Task(network, latency, backend, row, method, settings, fused, seed)


def main() -> int:
    """Run, measure, write tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one network, two rows, little training")
    parser.add_argument("--tables", action="store_true", help="only write tables")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=60, help="begin no run after that long")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=(), help="rows to run")
    options = parser.parse_args()
    if options.quick:
        return _quick(options.workers)
    failed = 0
    if not options.tables:
        CACHE.mkdir(parents=True, exist_ok=True)
        finished = {_key(r) for r in read(RUNS)}
        pending = [t for t in tasks(options.seeds, tuple(options.only)) if t.key not in finished]
        side_by_side = {"workers": options.workers, "minutes": options.minutes}
        failed = carry_out(pending, run, Protocol(), CACHE, RUNS, **side_by_side)
        measure_latency(read(RUNS), CACHE, LATENCY)
        measure_forms(FORMS)
        measure_speed(SPEED)
    write_tables(read(RUNS), read(LATENCY), RESULTS, ROOT / "docs" / "results")
    return 1 if failed else 0


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["network"], row["latency"], row["backend"], row["row"], row["seed"])


def _quick(workers: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        runs, times = place / "runs.jsonl", place / "latency.jsonl"
        wanted = [
            task
            for task in tasks(1, (*QUICK, "dense"))
            if task.network == NETWORKS[0]
            and (task.method == "dense" or (task.latency, task.backend) == (BOUNDS[0], BACKENDS[0]))
        ]
        protocol = Protocol(dense_epochs=1, epochs=1, batches=60)
        carry_out(list(wanted), run, protocol, place, runs, workers=workers, minutes=10)
        measure_latency(read(runs), place, times)
        for row in read(times):
            print(json.dumps({key: row[key] for key in ("network", "backend", "row", "ratio")}))
        return 0 if len(read(runs)) == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
