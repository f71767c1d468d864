#!/usr/bin/env python3
"""Networks with sparse weights in billhook's engine, against dense ones in ONNX Runtime and OpenVINO.

    python benchmarks/engine.py                     # all networks; about 20 minutes
    python benchmarks/engine.py --networks resnet50 --levels 0 0.8
    python benchmarks/engine.py --quick             # MobileNetV2, two levels, short turns; writes nothing

Latency in float32, one thread, batch 1, images of 224 pixels, random weights with zeros in blocks (magnitude,
the same share in every layer in scope). All that is compared takes turns in one run. Speed-up is the time of
the faster of the two dense runtimes over the engine's. Every network and level is a line of
benchmarks/results/engine.jsonl.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import billhook  # noqa: E402
from billhook.deploy import export  # noqa: E402
from billhook.measure import Artifact, Timing, backends, profile  # noqa: E402
from billhook.measure.environment import environment  # noqa: E402
from tests.torchvision_ops import declare  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "engine.jsonl"
# Network → pattern, layers that stay dense like the depthwise ones: the stem and the last layer.
NETWORKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "resnet50": ("8x1", ("conv1", "fc")),
    "vgg16": ("8x1", ("features.0", "classifier.6")),
    "mobilenet_v2": ("8x1", ("features.0.0", "classifier.1")),
}
LEVELS = (0.0, 0.5, 0.7, 0.8, 0.9)
DENSE = ("onnxruntime", "openvino")


def build(name: str) -> nn.Module:
    """Return a network of torchvision with random weights and batch norms that do something."""
    declare()
    torch.manual_seed(0)
    model: nn.Module = importlib.import_module("torchvision.models").get_model(name, weights=None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def sparse(model: nn.Module, x: Tensor, level: float, pattern: str, dense: tuple[str, ...]) -> nn.Module:
    """Return the network with zeros in blocks."""
    if not level:
        return model
    depthwise = tuple(
        n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1
    )
    made = billhook.sparsify(
        model,
        x,
        sparsity=level,
        pattern=pattern,
        allocation="uniform",
        scope=billhook.Scope(exclude=(*dense, *depthwise)),
    )
    return made.network


def error(model: nn.Module, artifact: Artifact, x: Tensor) -> float:
    """Return the largest difference from PyTorch, relative to the largest output."""
    with torch.no_grad():
        expected = model(x)
    (found,) = backends.get(artifact.manifest.backend).open(artifact).run([x.numpy()])
    return float((torch.from_numpy(found) - expected).abs().max() / expected.abs().max())


def rows(name: str, levels: tuple[float, ...], timing: Timing, threads: int) -> list[dict[str, Any]]:
    """Return one row per level; everything is timed in one run."""
    pattern, dense = NETWORKS[name]
    model, x = build(name), torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        artifacts = [export(model, x, place / b, backend=b, purpose="timing") for b in DENSE]
        errors = []
        for level in levels:
            network = sparse(model, x, level, pattern, dense)
            # As it is shipped: what is made for timing alone has the usual cuts, not those of this processor.
            artifacts.append(export(network, x, place / f"sparse{level}", backend="billhook"))
            errors.append(error(network, artifacts[-1], x))
        found = profile(artifacts, timing)
    times = {b: p.latency for b, p in zip(DENSE, found, strict=False)}
    fastest = min(times, key=lambda b: times[b].value)
    base = times[fastest]
    made = []
    for level, off, each in zip(levels, errors, found[len(DENSE) :], strict=True):
        made.append(
            {
                "network": name,
                "pattern": pattern,
                "sparsity": f"{level:.0%}",
                "threads": threads,
                "billhook": each.latency.to_dict(),
                **{b: t.to_dict() for b, t in times.items()},
                "faster": fastest,
                "speedup": round(base.value / each.latency.value, 3),
                "speedup_of_minima": round(base.minimum / each.latency.minimum, 3),
                "error": f"{off:.0e}",
                "memory": each.memory.to_dict(),
            }
        )
        print(
            f"{name} {level:.0%}: {each.latency.value * 1e3:.2f} ms, {made[-1]['speedup']:.2f} times as fast "
            f"as {fastest} ({base.value * 1e3:.2f} ms), error {off:.0e}",
            flush=True,
        )
    return made


def save(name: str, threads: int, made: list[dict[str, Any]]) -> None:
    """Put the rows of a network in the place of older ones, and the conditions below all."""
    old = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    kept = [r for r in old if "note" not in r and (r["network"], r["threads"]) != (name, threads)]
    place = environment()
    versions = ", ".join(f"{b} {place['versions'][b]}" for b in DENSE)
    note = (
        f"{place['cpu']}, {place['os']}, {versions}. Fastest instruction set; float32, batch 1, "
        "224 pixels, random weights; medians of rounds taken in turns; pinned; time on the core."
    )
    rows = sorted([*kept, *made], key=lambda r: (list(NETWORKS).index(r["network"]), r["threads"]))
    RESULTS.write_text("".join(json.dumps(r) + "\n" for r in [*rows, {"note": note}]))


def main() -> int:
    """Measure, and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="*", default=tuple(NETWORKS), choices=tuple(NETWORKS))
    parser.add_argument("--levels", nargs="*", type=float, default=LEVELS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one network, two levels, short turns")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        rows("mobilenet_v2", (0.0, 0.8), Timing(rounds=3, seconds_per_round=0.1), 1)
        return 0
    for name in options.networks:
        timing = Timing(rounds=9, seconds_per_round=0.5, threads=options.threads)
        made = rows(name, tuple(options.levels), timing, options.threads)
        save(name, options.threads, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
