#!/usr/bin/env python3
"""Deep reuse against the exact products of the same engine: accuracy and time.

    python benchmarks/engine_reuse.py           # writes benchmarks/results/engine_reuse.jsonl; two minutes
    python benchmarks/engine_reuse.py --quick   # one setting, few images, short turns; writes nothing

The trained ResNet-20 for Fashion-MNIST: every setting is scored on the validation part, and the fastest one
that loses at most a point there on the test part, once, beside the exact network. Then single layers whose
pixels are copies of a few, which is what reuse is for. One thread, one sample at a time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from billhook.compile.compiler import compile_model  # noqa: E402
from billhook.compile.reuse import DeepReuse  # noqa: E402
from billhook.compile.session import EngineSession  # noqa: E402
from billhook.data import Dataset, load  # noqa: E402
from billhook.measure.environment import environment  # noqa: E402
from billhook.models import checkpoint  # noqa: E402
from billhook.results import Measurement  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "engine_reuse.jsonl"
# Length, hashes, least outputs; all 3x3 convolutions of the network but the first have 32, 64 or 96 outputs.
SETTINGS = (
    *((9, 8, 32), (9, 12, 32), (32, 12, 32), (96, 8, 32), (96, 12, 32), (96, 16, 32)),
    *((32, 8, 96), (96, 4, 96), (96, 8, 96), (288, 8, 96)),
)
LAYERS = ((256, 1024, 28, 1), (256, 256, 28, 3), (64, 512, 56, 1))  # inputs, outputs, pixels of a row, window
MOST_LOST = 0.01  # of accuracy
SAMPLES = 64  # training images from which hyper-planes are learnt


def network_rows(chosen: Sequence[tuple[int, int, int]], seconds: float) -> list[dict[str, Any]]:
    """Return a row for the exact network and one for every setting."""
    data, found = load("fashion-mnist"), checkpoint("resnet-20", "fashion-mnist")
    if found is None:
        raise SystemExit("resnet-20 for fashion-mnist does not come with this billhook")
    model = found.load().eval()
    samples = [data.calibration(SAMPLES)[0].numpy()]
    one = torch.from_numpy(samples[0][:1])
    settings = [None, *(DeepReuse(*each, samples) for each in chosen)]
    files = [compile_model(model, one, check=False, reuse=each).file for each in settings]
    times = in_turns(files, one.numpy(), seconds)
    rows = [row("resnet-20", each, t, times[0]) for each, t in zip(settings, times, strict=True)]
    for line, file in zip(rows, files, strict=True):
        line["validation"] = accuracy(file, data, "validation")
        print(
            line["network"], line["reuse"], f"{line['validation']['value']:.4f}", line["speedup"], flush=True
        )
    least = rows[0]["validation"]["value"] - MOST_LOST
    kept = [i for i, line in enumerate(rows) if i and line["validation"]["value"] >= least]
    fastest = sorted(kept, key=lambda i: float(rows[i]["time"]["value"]))[:1]
    for i in (0, *fastest) if len(chosen) > 1 else ():
        rows[i]["test"] = accuracy(files[i], data, "test")
    return rows


def layer_rows(seconds: float) -> list[dict[str, Any]]:
    """Return a row for every layer, with slabs as long as its windows."""
    rows = []
    for inputs, outputs, size, kernel in LAYERS:
        torch.manual_seed(0)
        model = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2).eval()
        x = copies(inputs, size)
        reuse = DeepReuse(inputs * kernel**2, 12, 1, [x.numpy()])
        files = [compile_model(model, x, check=False, reuse=each).file for each in (None, reuse)]
        times = in_turns(files, x.numpy(), seconds)
        with torch.no_grad():
            expected = model(x).numpy()
        with EngineSession(files[1]) as session:
            (made,) = session.run([x.numpy()])
        name = f"{kernel}×{kernel}, {inputs} to {outputs}, {size} pixels"
        error = float(np.abs(made - expected).mean() / np.abs(expected).mean())
        rows.append(row(name, reuse, times[1], times[0]) | {"error": f"{error:.0e}"})
        print(name, rows[-1]["speedup"], rows[-1]["error"], flush=True)
    return rows


def copies(channels: int, size: int) -> Tensor:
    """Return an image of nine flat fields."""
    fields = torch.randn(1, channels, 3, 3, generator=torch.Generator().manual_seed(0)).relu()
    step = -(-size // 3)
    return fields.repeat_interleave(step, 2).repeat_interleave(step, 3)[:, :, :size, :size].contiguous()


def row(name: str, reuse: DeepReuse | None, own: Measurement, exact: Measurement) -> dict[str, Any]:
    """Return what all rows have."""
    words = "none" if reuse is None else f"length {reuse.length}, {reuse.hashes} hashes"
    if reuse is not None and reuse.outputs > 1:
        words += f", from {reuse.outputs} outputs"
    times = {"time": own.to_dict(), "exact": exact.to_dict()}
    return {"network": name, "reuse": words} | times | {"speedup": round(exact.value / own.value, 3)}


def accuracy(file: bytes, data: Dataset, part: Any) -> dict[str, Any]:
    """Return the share of right answers."""
    right = count = 0
    with EngineSession(file) as session:
        for x, y in data.evaluation(part):
            (made,) = session.run([x.numpy()])
            right += int((made.argmax(1) == y.numpy()).sum())
            count += len(y)
    return Measurement(right / count, "1", conditions={"split": part, "images": str(count)}).to_dict()


def in_turns(files: Sequence[bytes], x: np.ndarray, seconds: float) -> list[Measurement]:
    """Return the median time on the core of one sample, for each of the files; they take turns."""
    sessions = [EngineSession(file) for file in files]
    spent: list[list[float]] = [[] for _ in sessions]
    for session in sessions:
        session.run([x])
    end = time.perf_counter() + seconds * len(files)
    while time.perf_counter() < end:
        for session, own in zip(sessions, spent, strict=True):
            start = time.thread_time()
            session.run([x])
            own.append(time.thread_time() - start)
    for session in sessions:
        session.close()
    return [Measurement(median(own), "s", repetitions=len(own), minimum=min(own)) for own in spent]


def main() -> int:
    """Measure, and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one setting, short turns; writes nothing")
    torch.set_num_threads(1)
    if parser.parse_args().quick:
        network_rows(SETTINGS[-1:], 0.2)
        return 0
    made = [*network_rows(SETTINGS, 2.0), *layer_rows(2.0)]
    place = environment()
    note = (
        f"{place['cpu']}, {place['os']}. Fastest instruction set; float32, one thread, batch 1; medians "
        "of runs taken in turns; time on the core."
    )
    RESULTS.write_text("".join(json.dumps(r) + "\n" for r in [*made, {"note": note}]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
