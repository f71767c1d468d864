#!/usr/bin/env python3
"""Every structured pruning method under the same budgets, with the same training.

    python benchmarks/methods.py                 # two processes, about 70 minutes, goes on where it stopped
    python benchmarks/methods.py --quick         # a few methods, short training, into a temporary folder
    python benchmarks/methods.py --tables        # tables and plots from the runs there are
    python benchmarks/methods.py --torch-pruning # rows of Torch-Pruning, in an environment that has it

Fashion-MNIST, ResNet-20 (stem stride 2) and a small VGG, half and a quarter of the MACs. Every method gets
the same trained network (one per seed) and the same number of training steps, those of its decision included;
then batch-norm statistics are renewed where weights were inherited, and the rest is fine-tuning. Seeds are
done one after the other, so that an interrupted run has whole tables. Each run is a line of
benchmarks/results/methods_runs.jsonl.
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

from benchmarks._methods_latency import measure  # noqa: E402
from benchmarks._methods_run import AT_INITIALISATION, NETWORKS, TORCH_PRUNING, Task, run  # noqa: E402
from benchmarks._methods_table import write_tables  # noqa: E402
from benchmarks._methods_torch_pruning import IMPORTANCES  # noqa: E402
from benchmarks._pool import carry_out, read  # noqa: E402
from benchmarks._training import Protocol  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
RUNS, LATENCY = RESULTS / "methods_runs.jsonl", RESULTS / "methods_latency.jsonl"
CACHE = ROOT / ".cache" / "methods"
BUDGETS = (0.5, 0.25)

CRITERIA = (
    *("random", "l1", "l2", "group_norm", "bn_scale", "fpgm"),
    *("taylor", "taylor_activation", "fisher", "obd", "hrank", "apoz"),
)
METHODS = (
    *("obs", "orthp", "iterative", "soft", "asfp", "network_slimming", "thinet"),
    *("gator", "ascp", "spp", "greg1", "greg2", "tpp"),
)
VARIANTS = (
    ("l2", {"allocator": "uniform"}, "l2, uniform widths"),
    ("taylor", {"options": {"form": "weight"}}, "taylor, weight form"),
    ("iterative", {"options": {"criterion": "taylor"}}, "iterative taylor"),
)
QUICK = ("random", "l2", "gator", "scratch")


def tasks(seeds: int, only: tuple[str, ...]) -> Iterator[Task]:
    """Yield all runs, one seed after the other."""
    for seed in range(seeds):
        for network in NETWORKS:
            yield Task(network, 1.0, "dense", seed)
        for network in NETWORKS:
            yield Task(network, 1.0, "dense_longer", seed)
        for macs in BUDGETS:
            for network in NETWORKS:
                for method in only or (*CRITERIA, *METHODS, "scratch"):
                    yield Task(network, macs, method, seed)
                for method, settings, label in () if only else VARIANTS:
                    yield Task(network, macs, method, seed, label=label, **settings)  # type: ignore[arg-type]
    # What trains from scratch takes as long as all others together: one seed, and last.
    for macs in () if only else BUDGETS:
        for network in NETWORKS:
            for method in ("scratch_long", *AT_INITIALISATION):
                yield Task(network, macs, method)


def torch_pruning_tasks(seeds: int) -> Iterator[Task]:
    """Yield the runs of Torch-Pruning."""
    for seed in range(seeds):
        for macs in BUDGETS:
            for network in NETWORKS:
                for name in IMPORTANCES:
                    yield Task(network, macs, f"{TORCH_PRUNING}{name}", seed)


def done(path: Path) -> set[tuple[str, float, str, int]]:
    """Return the runs that are finished."""
    return {(r["network"], r["macs"], r["row"], r["seed"]) for r in read(path)}


def main() -> int:
    """Run, measure, write tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few methods, little training")
    parser.add_argument("--tables", action="store_true", help="only write tables and plots")
    parser.add_argument("--torch-pruning", action="store_true", help="run Torch-Pruning instead of billhook")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=60, help="begin no run after that long")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=(), help="rows to run")
    options = parser.parse_args()
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            protocol = Protocol(dense_epochs=1, epochs=1, batches=60)
            pending = list(tasks(1, QUICK))
            runs = place / "runs.jsonl"
            carry_out(pending, run, protocol, place, runs, workers=options.workers, minutes=10)
            rows = read(runs)
            for row in rows:
                print(json.dumps({k: row[k] for k in ("network", "macs", "row", "test_accuracy")}))
            return 0 if len(rows) == len(list(tasks(1, QUICK))) else 1
    failed = 0
    if not options.tables:
        CACHE.mkdir(parents=True, exist_ok=True)
        finished = done(RUNS)
        wanted = tasks(options.seeds, tuple(options.only))
        if options.torch_pruning:
            wanted = torch_pruning_tasks(options.seeds)
        pending = [t for t in wanted if (t.network, t.macs, t.row, t.seed) not in finished]
        failed = carry_out(
            pending, run, Protocol(), CACHE, RUNS, workers=options.workers, minutes=options.minutes
        )
        measure(read(RUNS), CACHE, LATENCY)
    write_tables(read(RUNS), read(LATENCY), RESULTS, ROOT / "docs" / "results")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
