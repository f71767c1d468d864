#!/usr/bin/env python3
"""What the engine costs beside its latency: bytes of the library, seconds until the first result, memory.

    python benchmarks/engine_footprint.py           # a minute; writes results/engine_footprint.jsonl
    python benchmarks/engine_footprint.py --quick   # the sparse network only, one process; writes nothing

ResNet-50, 224 pixels, random weights, dense and with 80 % zeros in blocks of 8×1. Processes are fresh, pinned
to one core, have no torch, and find the model file in the system's file cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.engine import NETWORKS, build, sparse  # noqa: E402
from billhook.compile.compiler import assembled, compile_model  # noqa: E402
from billhook.compile.ir import Network  # noqa: E402
from billhook.compile.library import library_path  # noqa: E402
from billhook.compile.tune import tune  # noqa: E402
from billhook.measure.environment import environment, quiet_cores  # noqa: E402
from billhook.results import Measurement  # noqa: E402
from billhook.units import format_bytes  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "engine_footprint.jsonl"
PROCESS = Path(__file__).with_name("_footprint_process.py")
LEVELS = {"dense": 0.0, "sparse": 0.8}
ASKED = {
    "library": "≤ 1 MB",
    "compile and tune, no cache": "≤ 60 s",
    "open and first run": "≤ 0.3 s",
    "resident, over weights + activations": "≤ 1.3",
}


def measured(level: float, folder: Path, processes: int) -> dict[str, Any]:
    """Return the figures of one network by name."""
    pattern, ends = NETWORKS["resnet50"]
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    model = sparse(build("resnet50"), x, level, pattern, ends)
    began = time.perf_counter()
    compiled = compile_model(model, x, check=False)
    file = assembled(compiled.network, tune(compiled.network))
    tuning = time.perf_counter() - began
    path = folder / f"{level}.bhk"
    path.write_bytes(file)
    fresh = [fresh_process(path) for _ in range(processes)]
    if any(each["torch"] for each in fresh):
        raise SystemExit("a process that should run the engine alone has imported torch")
    needed = weight_bytes(compiled.network) + fresh[0]["activations"]
    resident = summary([each["resident"] for each in fresh], "B")
    return {
        "library": summary([library_path().stat().st_size], "B"),
        "compile and tune, no cache": summary([tuning], "s"),
        "imports of numpy and the engine": summary([each["imports"] for each in fresh], "s"),
        "open: map, checksum, validate": summary([each["open"] for each in fresh], "s"),
        "first run": summary([each["first"] for each in fresh], "s"),
        "open and first run": summary([each["open"] + each["first"] for each in fresh], "s"),
        "model file": summary([len(file)], "B"),
        "weights that are not zero": summary([weight_bytes(compiled.network)], "B"),
        "activations": summary([fresh[0]["activations"]], "B"),
        "resident": resident,
        "resident, over weights + activations": round(resident["value"] / needed, 3),
    }


def fresh_process(model: Path) -> dict[str, Any]:
    """Return what a new process reports that opens and runs a model file."""
    core = quiet_cores(1)
    # -P and this path: what lies beside the script stays out, and the package need not be installed.
    done = subprocess.run(
        [sys.executable, "-P", str(PROCESS), str(model)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        preexec_fn=(lambda: os.sched_setaffinity(0, core)) if core else None,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def weight_bytes(network: Network) -> int:
    """Return the bytes of weights that are not zero, and of biases."""
    total = 0
    for op in network:
        for name in ("weight", "bias"):
            values = getattr(op, name, None)
            if values is not None:
                total += 4 * int((values != 0).sum() if name == "weight" else values.size)
    return total


def summary(samples: list[float], unit: str) -> dict[str, Any]:
    """Return the median and the extremes of samples."""
    return Measurement(statistics.median(samples), unit, len(samples), min(samples), max(samples)).to_dict()


def main() -> int:
    """Measure, and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one network, one process, writes nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        levels = {"sparse": LEVELS["sparse"]} if options.quick else LEVELS
        found = {
            name: measured(level, Path(folder), 1 if options.quick else 7) for name, level in levels.items()
        }
    rows = [
        {"figure": figure, "asked": ASKED.get(figure, ""), **{n: each[figure] for n, each in found.items()}}
        for figure in found["sparse"]
    ]
    for row in rows:
        print(row["figure"], row["asked"], *(shown(row[n]) for n in found), sep="; ", flush=True)
    if options.quick:
        return 0
    place = environment()
    note = (
        f"{place['cpu']}, {place['os']}. ResNet-50, float32, 224 pixels, random weights; sparse: 80 % zeros "
        "in blocks of 8×1. Medians of 7 fresh processes, pinned to one core, wall time; the file is in the "
        "file cache."
    )
    RESULTS.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in [*rows, {"note": note}]))
    return 0


def shown(value: Any) -> str:
    """Return a figure for the terminal."""
    if not isinstance(value, dict):
        return str(value)
    return format_bytes(value["value"]) if value["unit"] == "B" else f"{value['value']:.4f} s"


if __name__ == "__main__":
    sys.exit(main())
