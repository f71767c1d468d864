"""A fresh process that opens a model file and runs it: `python _footprint_process.py MODEL`; prints JSON.

Only the engine and numpy are there; importing torch here would falsify all numbers.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

STARTED = time.perf_counter()

import numpy as np  # noqa: E402

from billhook.compile.library import library  # noqa: E402
from billhook.compile.session import EngineSession  # noqa: E402

RUNS = 5


def resident() -> int:
    """Return the bytes of this process that are in memory: its own pages and those of mapped files."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(line[1]) for line in lines if line and line[0] in ("RssAnon:", "RssFile:")) * 1024


def main(model: str) -> None:
    """Open, run, measure."""
    library()
    imported = time.perf_counter()
    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
    before = resident()
    opening = time.perf_counter()
    session = EngineSession(model)
    opened = time.perf_counter()
    session.run([x])
    first = time.perf_counter()
    for _ in range(RUNS):
        session.run([x])
    found = {
        "imports": imported - STARTED,
        "open": opened - opening,
        "first": first - opened,
        "resident": resident() - before,
        "activations": session.arena,
        "torch": "torch" in sys.modules,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
