#!/usr/bin/env python3
"""Patterns, sparse methods, unification and mapping, on the same trained networks and for the same epochs.

    python benchmarks/sparse.py                 # two processes, goes on where it stopped
    python benchmarks/sparse.py --quick         # a few rows, short training, into a temporary folder
    python benchmarks/sparse.py --tables        # tables from the runs there are

Fashion-MNIST, ResNet-20 (stem stride 2) and a small VGG; a LeNet-5 on Fashion-MNIST and digits. Every row
begins with the same trained network and trains two epochs, those of the decision included. First and last
layer stay dense. Each run is a line of benchmarks/results/sparse_runs.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks._pool import carry_out, read  # noqa: E402
from benchmarks._sparse_mapping import mapping_tasks, search_rows  # noqa: E402
from benchmarks._sparse_run import Task, key, run  # noqa: E402
from benchmarks._sparse_speed import measure_speed  # noqa: E402
from benchmarks._sparse_table import write_tables  # noqa: E402
from benchmarks._training import Protocol  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
RUNS, SEARCH = RESULTS / "sparse_runs.jsonl", RESULTS / "sparse_search_runs.jsonl"
SPEED = RESULTS / "sparse_speed.jsonl"
CACHE = ROOT / ".cache" / "sparse"

GRID = ("resnet-20", "small-vgg")
PATTERNS = ("4x1", "unstructured", "8x1", "8x4", "kernel_pattern", "filter")
METHODS = ("magnitude", "admm", "gradual", "reweighted")
SPARSITIES = (0.8, 0.9, 0.95, 0.7, 0.5)  # the most telling first
# Rows of about the same bytes: 9.8, 5.1 and 2.7 % of float32, structure included.
UNIFIED = (
    (("unified:4x4", 0.0), ("4x1", 0.9065), ("unstructured", 0.916)),
    (("unified:4x4", 0.5), ("4x1", 0.9517), ("unstructured", 0.9575)),
    (("unified:4x4", 0.75), ("4x1", 0.974), ("unstructured", 0.9785)),
)
LENET = (0.97, 0.98)
LONG, LONG_LEVELS = 6, (0.8, 0.9, 0.95)  # epochs


def tasks(seeds: int) -> Iterator[Task]:
    """Yield all runs but those of the mapping, one seed after the other."""
    for seed in range(seeds):
        for network in GRID:
            yield Task(network, seed=seed)
        for data in ("fashion-mnist", "digits"):
            yield Task("lenet-5", part="lenet", data=data, seed=seed)
        for method in METHODS:
            for sparsity in SPARSITIES:
                for pattern in PATTERNS:
                    for network in GRID:
                        zeros = _reachable(pattern, sparsity)
                        yield Task(network, "grid", pattern, pattern, zeros, method, seed=seed)
            if method == METHODS[0]:
                yield from _others(seed)
                yield from _long(seed)


def _others(seed: int) -> Iterator[Task]:
    for network in GRID:
        for rows in UNIFIED:
            for pattern, sparsity in rows:
                for method in METHODS[:2]:
                    row = f"{pattern}, {sparsity:.1%} pruned"
                    yield Task(network, "unification", row, pattern, sparsity, method, seed=seed)
    for data, epochs in (("fashion-mnist", 20), ("digits", 200)):
        yield Task("lenet-5", "lenet", method="trained on", epochs=epochs, data=data, seed=seed)
        for sparsity in LENET:
            for method in ("magnitude", "admm", "gradual"):
                yield Task(
                    "lenet-5",
                    "lenet",
                    "unstructured",
                    "unstructured",
                    sparsity,
                    method,
                    epochs=epochs,
                    data=data,
                    seed=seed,
                )


def _long(seed: int) -> Iterator[Task]:
    """Yield runs in which there is time to find other zeros than those of the dense network."""
    for sparsity in LONG_LEVELS:
        for method in METHODS:
            yield Task("resnet-20", "long", "4x1", "4x1", sparsity, method, epochs=LONG, seed=seed)


def _reachable(pattern: str, sparsity: float) -> float:
    """Return the sparsity; kernel patterns leave at least 5 of 9 weights at zero."""
    return max(sparsity, 0.5556) if pattern == "kernel_pattern" else sparsity


def main() -> int:
    """Run, measure, write tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one network, few rows, little training")
    parser.add_argument("--tables", action="store_true", help="only write tables")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=75, help="begin no run after that long")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--parts", nargs="*", default=(), help="parts to run: grid, unification, lenet, mapping"
    )
    parser.add_argument("--methods", nargs="*", default=METHODS, help="methods of the grid to run")
    options = parser.parse_args()
    if options.quick:
        return _quick(options.workers)
    failed = 0
    if not options.tables:
        CACHE.mkdir(parents=True, exist_ok=True)
        side_by_side = {"workers": options.workers, "minutes": options.minutes}
        wanted = [
            t for t in tasks(options.seeds) if t.part != "grid" or t.method in ("dense", *options.methods)
        ]
        failed = _carry_out(wanted, options.parts, side_by_side)
        if not options.parts or "mapping" in options.parts:
            mappings = [t for seed in range(options.seeds) for t in mapping_tasks(seed, Protocol(), CACHE)]
            failed += _carry_out(mappings, options.parts, side_by_side)
            _search()
        if not options.parts:
            measure_speed(SPEED)
    write_tables(read(RUNS), read(SEARCH), RESULTS, ROOT / "docs" / "results")
    return 1 if failed else 0


def _carry_out(wanted: list[Task], parts: list[str], side_by_side: dict[str, float]) -> int:
    """Run what is not finished yet; return how many have failed."""
    finished = {key(row) for row in read(RUNS)}
    pending = [
        t
        for t in wanted
        if t.key not in finished and (not parts or t.part.split()[0] in parts or t.method == "dense")
    ]
    return carry_out(pending, run, Protocol(), CACHE, RUNS, **side_by_side) if pending else 0


def _search() -> None:
    """Search for mappings, and draw as many at random; what is on the disk is not done again."""
    finished = {(r["network"], r["seed"]) for r in read(SEARCH)}
    for network in GRID:
        if (network, 0) not in finished:
            row = search_rows(network, 0, Protocol(), CACHE)
            with SEARCH.open("a") as stream:
                stream.write(json.dumps(row) + "\n")


def _quick(workers: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        runs = place / "runs.jsonl"
        protocol = Protocol(dense_epochs=1, epochs=1, batches=60)
        wanted = [
            t
            for t in tasks(1)
            if t.network == GRID[0]
            and (
                t.method == "dense"
                or (t.part == "grid" and t.sparsity == SPARSITIES[0] and t.row in PATTERNS[:2])
            )
        ]
        carry_out(list(wanted), run, protocol, place, runs, workers=workers, minutes=10)
        for row in read(runs):
            print(
                json.dumps(
                    {k: row[k] for k in ("network", "row", "method", "sparsity", "validation_accuracy")}
                )
            )
        return 0 if len(read(runs)) == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
