#!/usr/bin/env python3
"""Sparse networks in 8 bits in billhook's engine, against dense ones in 8 bits in ONNX Runtime.

    python benchmarks/engine_int8.py                          # ResNet-50; about ten minutes
    python benchmarks/engine_int8.py --networks mobilenet_v2 --levels 0 0.8
    python benchmarks/engine_int8.py --quick                  # MobileNetV2, short turns; writes nothing

Latency, one thread, batch 1, images of 224 pixels, random weights with zeros in blocks of 8 outputs ×
4 inputs (magnitude, the same share in every layer in scope). ONNX Runtime runs activations of 8 bits without
sign and weights with sign per output channel, its fast form; both are calibrated on the same images. All that
is compared takes turns in one run, the engine in float32 among it. Every network and level is a line of
benchmarks/results/engine_int8.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.engine import build, sparse  # noqa: E402
from billhook import Calibration  # noqa: E402
from billhook.deploy import export  # noqa: E402
from billhook.deploy.parity import sqnr  # noqa: E402
from billhook.measure import Artifact, Timing, backends, profile  # noqa: E402
from billhook.measure.environment import environment  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "engine_int8.jsonl"
PATTERN = "8x4"
# Network → layers that stay dense, and the pattern of the others.
NETWORKS: dict[str, tuple[str, ...]] = {
    "resnet50": ("conv1", "fc"),
    "mobilenet_v2": ("features.0.0", "classifier.1"),
}
LEVELS = (0.0, 0.5, 0.7, 0.8, 0.9)
ASKED = {0.5: 1.2, 0.7: 2.0, 0.8: 2.5, 0.9: 3.5}  # of resnet50
DENSE = "onnxruntime"


def images(count: int) -> Tensor:
    """Return random images, the same in every run."""
    return torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def noise(model: nn.Module, artifact: Artifact, x: Tensor) -> float:
    """Return signal to noise of an artifact against PyTorch, in dB."""
    with torch.no_grad():
        expected = model(x)
    (found,) = backends.get(artifact.manifest.backend).open(artifact).run([x.numpy()])
    return sqnr(expected.numpy(), found)


def rows(name: str, levels: tuple[float, ...], timing: Timing) -> list[dict[str, Any]]:
    """Return one row per level; everything is timed in one run."""
    dense, model, x = NETWORKS[name], build(name), images(1)
    calibration = Calibration([images(8)])
    noises = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        artifacts = [export(model, x, place / "dense", backend=DENSE, calibration=calibration)]
        for level in levels:
            network = sparse(model, x, level, PATTERN, dense)
            for bits, wanted in (("int8", calibration), ("float32", None)):
                made = export(network, x, place / f"{bits}{level}", backend="billhook", calibration=wanted)
                artifacts.append(made)
            noises.append(noise(network, artifacts[-2], x))
        base, *found = (p.latency for p in profile(artifacts, timing))
    made = []
    for level, off, ours, floats in zip(levels, noises, found[::2], found[1::2], strict=True):
        made.append(
            {
                "network": name,
                "pattern": PATTERN,
                "sparsity": f"{level:.0%}",
                "billhook_int8": ours.to_dict(),
                "billhook_float32": floats.to_dict(),
                "onnxruntime_int8": base.to_dict(),
                "speedup": round(base.value / ours.value, 3),
                "speedup_of_minima": round(
                    base.conditions["fastest_run_s"] / ours.conditions["fastest_run_s"], 3
                ),
                "asked": ASKED.get(level) if name == "resnet50" else None,
                "over_float32": round(floats.value / ours.value, 3),
                "sqnr_db": f"{off:.0f}",
            }
        )
        print(
            f"{name} {level:.0%}: {ours.value * 1e3:.2f} ms, {made[-1]['speedup']:.2f} times as fast as "
            f"ONNX Runtime in int8 ({base.value * 1e3:.2f} ms), {made[-1]['over_float32']:.2f} times as fast "
            f"as in float32, {off:.0f} dB",
            flush=True,
        )
    return made


def save(name: str, made: list[dict[str, Any]]) -> None:
    """Put the rows of a network in the place of older ones, and the conditions below all."""
    old = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    kept = [r for r in old if "note" not in r and r["network"] != name]
    place = environment()
    note = (
        f"{place['cpu']}, {place['os']}, ONNX Runtime {place['versions'][DENSE]}. Fastest instruction set; "
        "one thread, batch 1, 224 pixels, random weights; medians of rounds taken in turns; pinned; time on "
        "the core. ONNX Runtime: QDQ, u8 activations, s8 weights per channel, dense."
    )
    order = list(NETWORKS)
    lines = sorted([*kept, *made], key=lambda r: order.index(r["network"]))
    RESULTS.write_text("".join(json.dumps(r) + "\n" for r in [*lines, {"note": note}]))


def main() -> int:
    """Measure, and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="*", default=("resnet50",), choices=tuple(NETWORKS))
    parser.add_argument("--levels", nargs="*", type=float, default=LEVELS)
    parser.add_argument("--quick", action="store_true", help="one network, two levels, short turns")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        rows("mobilenet_v2", (0.0, 0.8), Timing(rounds=3, seconds_per_round=0.1))
        return 0
    for name in options.networks:
        save(name, rows(name, tuple(options.levels), Timing(rounds=9, seconds_per_round=0.5)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
