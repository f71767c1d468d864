#!/usr/bin/env python3
"""Single zeros anywhere: billhook's engine against DeepSparse 1.8.0 with the same sparse ResNet-50.

    python benchmarks/engine_deepsparse.py           # three minutes; writes results/engine_deepsparse.jsonl
    python benchmarks/engine_deepsparse.py --quick   # one level, short turns; writes nothing

Float32, one thread, batch 1, 224 pixels, random weights with the smallest of every layer set to zero; the
stem and the last layer stay dense. Both run in processes of their own that take turns of half a second on the
same core. DeepSparse has an environment under .cache; where that cannot be made, nothing is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks._deepsparse import PATH, VERSION, interpreter, output, readable  # noqa: E402
from benchmarks.engine import NETWORKS, build, error, sparse  # noqa: E402
from billhook.deploy import export  # noqa: E402
from billhook.measure import Artifact, Timing  # noqa: E402
from billhook.measure.environment import environment, quiet_cores  # noqa: E402
from billhook.measure.latency import PROBE_SECONDS, start, take_turns  # noqa: E402
from billhook.measure.process import WorkerProcess  # noqa: E402
from billhook.measure.rounds import summarise  # noqa: E402
from billhook.results import Measurement  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "engine_deepsparse.jsonl"
LEVELS = (0.0, 0.8, 0.9)


def row(level: float, timing: Timing, python: Path) -> dict[str, Any]:
    """Return the times of both at one level."""
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    network = sparse(build("resnet50"), x, level, "unstructured", NETWORKS["resnet50"][1])
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        ours = export(network, x, place / "billhook", backend="billhook")
        theirs = readable(export(network, x, place / "onnx", backend="onnxruntime", purpose="timing"))
        with torch.no_grad():
            expected = network(x)
        found = torch.from_numpy(output(python, theirs, x.numpy()))
        off = float((found - expected).abs().max() / expected.abs().max())
        billhook, deepsparse, probe = in_turns(ours, theirs, timing, python)
        return {
            "network": "resnet50",
            "sparsity": f"{level:.0%}",
            "billhook": billhook.to_dict(),
            "deepsparse": deepsparse.to_dict(),
            "speedup": round(deepsparse.value / billhook.value, 3),
            "speedup_of_minima": round(
                deepsparse.conditions["fastest_run_s"] / billhook.conditions["fastest_run_s"], 3
            ),
            "error": f"{error(network, ours, x):.0e}",
            "deepsparse_error": f"{off:.0e}",
            "probe_spread": round(probe.spread, 3),
        }


def in_turns(ours: Artifact, theirs: Artifact, timing: Timing, python: Path) -> list[Measurement]:
    """Return the latency of both, and of the fixed matrix product that tells how quiet the machine was."""
    cores = quiet_cores(timing.threads)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(start(ours, timing, cores)),
            stack.enter_context(started(theirs, timing, cores, python)),
            stack.enter_context(WorkerProcess("probe")),
        ]
        workers[-1].probe(cores)
        turns = take_turns(workers, timing, {workers[-1]: PROBE_SECONDS})
    shared = {"threads": timing.threads, "batch": 1, "machine": environment()}
    names = ("billhook", f"deepsparse {VERSION}", "probe")
    return [
        summarise(rounds, timing.clock, {"runtime": name, **shared})
        for name, rounds in zip(names, turns, strict=True)
    ]


def started(artifact: Artifact, timing: Timing, cores: Sequence[int], python: Path) -> WorkerProcess:
    """Return a warm worker in the other environment; the caller closes it."""
    worker = WorkerProcess("deepsparse", timeout=timing.timeout, interpreter=str(python), path=PATH)
    try:
        worker.request(
            {
                "op": "open",
                "directory": str(artifact.directory),
                "module": "benchmarks._deepsparse_runtime",
                "class": "DeepSparse",
                "cores": list(cores),
                "threads": timing.threads,
                "batch": 1,
                "seed": 0,
            }
        )
        worker.round(timing.warmup, timing.clock)
    except BaseException:
        worker.close()
        raise
    return worker


def main() -> int:
    """Measure, and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="90 %% only, short turns, writes nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    python = interpreter()
    if python is None:
        return 0
    timing = Timing(rounds=3, seconds_per_round=0.2) if options.quick else Timing(rounds=9)
    rows = []
    for level in LEVELS[-1:] if options.quick else LEVELS:
        rows.append(row(level, timing, python))
        ours, theirs = (rows[-1][n]["value"] * 1e3 for n in ("billhook", "deepsparse"))
        print(
            f"resnet50 {level:.0%}: {ours:.2f} ms, DeepSparse {theirs:.2f} ms: "
            f"{rows[-1]['speedup']:.2f} times as fast (minima {rows[-1]['speedup_of_minima']:.2f})",
            flush=True,
        )
    if options.quick:
        return 0
    place = environment()
    note = (
        f"{place['cpu']}, {place['os']}, DeepSparse {VERSION}. One thread, both pinned to the same core, "
        "batch 1; medians of rounds taken in turns, time on the core."
    )
    RESULTS.write_text("".join(json.dumps(r) + "\n" for r in [*rows, {"note": note}]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
