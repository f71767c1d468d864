#!/usr/bin/env python3
"""The demo, timed from start to end: Fashion-MNIST, a latency budget, one epoch of fine-tuning.

    python benchmarks/demo.py           # benchmarks/results/demo.jsonl, about three minutes

Runs examples/demo.py as `make demo` does and copies the outcome out of its results.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src")]

from billhook.run_record import Row, Run  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "demo.jsonl"


def table_row(row: Row) -> dict[str, object]:
    """Return one line of the table."""
    return {"metric": row.metric, "before": row.before.to_dict(), "after": row.after.to_dict()}


def main() -> None:
    """Run the demo in a fresh process and write its figures."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "examples" / "demo.py")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        start = time.perf_counter()
        subprocess.run(
            [*command, "--runs", folder, "--quiet"], check=True, stdout=sys.stderr, env=environment
        )
        seconds = time.perf_counter() - start
        (run,) = Path(folder).iterdir()
        results = Run.load(run).results
    ratio = results.latency_ratio
    assert ratio is not None
    rows = [table_row(r) for r in results.rows]
    rows.append({"metric": "speed-up, ratio of medians", "before": 1, "after": ratio.median})
    rows.append({"metric": "speed-up, ratio of minima", "before": 1, "after": ratio.minimum})
    rows.append({"metric": "seconds for everything", "before": "", "after": round(seconds)})
    latency = results.row("latency")
    assert latency is not None
    at = latency.after.conditions
    note = (
        "ResNet-20 (32, 64, 96 channels), Fashion-MNIST, seed 0; the test images are scored once per run. "
        f"Latency: {at['runtime']}, float32, {at['threads']} thread, batch 1, {at['clock']}, both in turns. "
        "Training on one thread. All conditions are in the report that `make demo` writes."
    )
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"note": note}]))


if __name__ == "__main__":
    main()
