#!/usr/bin/env python3
"""Searchers compared: equal budgets and evaluations, whole fronts, speed, and what a policy takes with it.

    python benchmarks/search.py                         # two processes, goes on where it stopped
    python benchmarks/search.py --parts budget --methods random amc --networks resnet-20 --seeds 0
    python benchmarks/search.py --quick                 # every part with few candidates, temporary folder
    python benchmarks/search.py --tables                # tables from the runs there are

Fashion-MNIST. Parts: `budget` (ResNet-20 with a stem of stride 2, small VGG; half and a quarter of the MACs),
`front` (JCW on the engine's latencies), `transfer` (a policy that has learned on a ResNet-20 goes on with a
ResNet-56), `large` (ResNet-56 at half of the MACs), `timing` (points of the fronts end to end) and `speed`;
the last two run alone. Each run is a line of benchmarks/results/search_*runs.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks import _search_front, _search_run, _search_speed, _search_transfer  # noqa: E402
from benchmarks._pool import carry_out, read  # noqa: E402
from benchmarks._search_run import LOWEST, Task, key  # noqa: E402
from benchmarks._search_table import write_tables  # noqa: E402
from benchmarks._training import Protocol  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
RUNS, TIMING, SPEED = "search_runs.jsonl", "search_timing_runs.jsonl", "search_speed_runs.jsonl"
CACHE = ROOT / ".cache" / "search"

NETWORKS = ("resnet-20", "small-vgg")
BUDGETS = (0.5, 0.25)
# Options that are not the default ones. JCW's own bound, half of the channels, would keep it from a quarter.
METHODS: dict[str, dict[str, Any]] = {
    "uniform": {},
    "random": {},
    "tpe": {},
    "amc": {},
    "agmc": {},
    "metapruning": {},
    "jcw": {"evaluation": "inherited", "channels": LOWEST, "population": 10},
}
SHARED = {
    "evaluation": "shared",
    "start": "trained",
    "channels": LOWEST,
    "population": 20,
    "slice_steps": 150,
    "lr": 0.02,
}
LARGE = ("uniform", "random", "amc", "agmc")
PARTS = ("budget", "front", "transfer", "shared", "large", "timing", "speed")


def tasks(trials: int) -> Iterator[Task]:
    """Yield all runs that may go side by side, the most telling first."""
    for seed in (0, 1):
        for network in (*NETWORKS, "resnet-56"):
            yield Task(network, "dense", seed=seed)
    for seed in (0, 1):
        for method, options in METHODS.items():
            for macs in BUDGETS:
                for network in NETWORKS:
                    yield Task(
                        network, "budget", method, method, options, macs, _trials(method, trials), seed=seed
                    )
        yield from _search_front.tasks(seed, 2 * trials)
        yield _search_transfer.task(seed, trials)
    for network in NETWORKS:
        yield Task(network, "shared", "jcw, shared weights", "jcw", SHARED, BUDGETS[0], trials)
    for method in LARGE:
        yield Task("resnet-56", "large", method, method, METHODS[method], BUDGETS[0], _trials(method, trials))


def _trials(method: str, trials: int) -> int:
    return 0 if method == "uniform" else trials


def run(task: Task, protocol: Protocol, folder: Path) -> dict[str, Any]:
    """Return the finished row of any part that may go side by side with others."""
    if task.part == "front":
        return _search_front.run(task, protocol, folder)
    if task.part == "transfer":
        return _search_transfer.run(task, protocol, folder)
    return _search_run.run(task, protocol, folder)


def main() -> int:
    """Run, measure, write tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few candidates, little training")
    parser.add_argument("--tables", action="store_true", help="only write tables")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--networks", nargs="*", default=[*NETWORKS, "resnet-56"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--trials", type=int, default=200, help="candidates of a search; twice for a front")
    parser.add_argument("--minutes", type=float, default=78, help="begin no run side by side after that long")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if options.quick:
        return _quick(options)
    failed = 0
    if not options.tables:
        CACHE.mkdir(parents=True, exist_ok=True)
        wanted = chosen(options.trials, options)
        failed = carry_all_out(wanted, options, Protocol(), CACHE, RESULTS)
    _tables(RESULTS, ROOT / "docs" / "results")
    return 1 if failed else 0


def chosen(trials: int, options: argparse.Namespace) -> list[Task]:
    """Return the runs that were asked for; trained networks come with the parts that begin with them."""
    every = list(tasks(trials))
    wanted = [
        t
        for t in every
        if t.part in options.parts
        and t.network in options.networks
        and t.seed in options.seeds
        and t.method in options.methods
    ]
    begun = {(t.network, t.seed) for t in wanted}
    return [t for t in every if t.part == "dense" and (t.network, t.seed) in begun] + wanted


def carry_all_out(
    wanted: Sequence[Task],
    options: argparse.Namespace,
    protocol: Protocol,
    folder: Path,
    results: Path,
) -> int:
    """Run what is not finished yet, then what has to be alone; return how many have failed."""
    finished = {key(r) for r in read(results / RUNS)}
    pending, failed = [t for t in wanted if t.key not in finished], 0
    if any(t.part == "front" for t in pending):
        _search_front.measure_table(protocol, folder)  # alone, before others are at work
    if pending:
        side_by_side = {"workers": options.workers, "minutes": options.minutes}
        failed = carry_out(pending, run, protocol, folder, results / RUNS, **side_by_side)
    if "timing" in options.parts:
        fronts = [r for r in read(results / RUNS) if r["part"] == "front"]
        timed = {(r["row"], r["trial"]) for r in read(results / TIMING)}
        _append(results / TIMING, _search_front.timings(fronts, timed, protocol, folder))
    if "speed" in options.parts:
        measured = {r["row"] for r in read(results / SPEED)}
        own = {m: METHODS[m] for m in options.methods}
        _append(results / SPEED, _search_speed.rows(own, measured, options.trials, protocol, folder))
    return failed


def _append(path: Path, made: Iterator[Mapping[str, Any]]) -> None:
    """Put rows on the disk as soon as they are known."""
    for row in made:
        with path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(f"{path.stem}: {row['row']}", file=sys.stderr, flush=True)


def _tables(results: Path, docs: Path) -> None:
    write_tables(read(results / RUNS), read(results / TIMING), read(results / SPEED), results, docs)


def _quick(options: argparse.Namespace) -> int:
    options.trials = 48  # more than one generation; a warm-up that ends
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "cache" / "search"
        folder.mkdir(parents=True)
        results = Path(name)
        options.networks, options.seeds = [NETWORKS[0], "resnet-56"], [0]
        protocol = Protocol(dense_epochs=1, epochs=1, batches=30)
        wanted = [t for t in chosen(options.trials, options) if t.macs in (1.0, BUDGETS[0])]
        failed = carry_all_out(wanted, options, protocol, folder, results)
        _tables(results, results)
        for path in sorted(results.glob("search_*.jsonl")):
            if not path.stem.endswith("runs"):
                print(f"{path.stem}\n{path.read_text()}")
        for path in sorted(results.glob("*.svg")):
            print(path.name, path.stat().st_size)
        return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
