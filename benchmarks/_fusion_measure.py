"""Latency of the networks with and without fusion, of the forms of shortcuts, and time that fusing takes."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks._fusion_run import ARGUMENTS, NETWORKS, Task, shipped
from benchmarks._pool import read
from benchmarks._training import example, untrained
from billhook.deploy import export, lower_by_cost
from billhook.fuse import Fusion, fuse, lower
from billhook.fuse.fuse import run_passes
from billhook.graph.fusions import as_layers
from billhook.measure import compare, latency

BACKENDS = ("onnxruntime", "openvino")
AT_ONCE = 11  # networks in one interleaved run, beside the dense one


def measure_latency(runs: Sequence[Mapping[str, Any]], folder: Path, results: Path) -> None:
    """Time the networks that were not timed yet, in turns with the dense one; weights do not matter."""
    known = {_key(r) for r in read(results)}
    wanted: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        if run["method"] != "dense" and "unreachable" not in run and _key(run) not in known:
            wanted.setdefault((run["network"], run["backend"]), []).append(run)
    for (network, backend), entries in wanted.items():
        for start in range(0, len(entries), AT_ONCE):
            part = entries[start : start + AT_ONCE]
            models = [untrained(network, ARGUMENTS, 0)]
            models += [shipped(_task(run), run["forms"], folder) for run in part]
            for run, timed in zip(part, _turns(models, backend), strict=True):
                row = {**{k: run[k] for k in ("network", "latency", "backend", "row", "seed")}, **timed}
                _append(results, row)


def measure_forms(results: Path) -> None:
    """Time networks that have lost nothing, all shortcuts in one form; first what lowering makes of them."""
    if results.exists():
        return
    for backend in BACKENDS:
        for network in NETWORKS:
            model = untrained(network, ARGUMENTS, 0)
            fused = fuse(model, example(), Fusion()).network
            names = ["lowered by cost"]
            models = [model, lower_by_cost(fused, example(), backend=backend).network]
            fused.meta.pop("shapes")  # as if something had left, so that all forms are open
            for form in ("pointwise", "gather", "concat"):
                names.append(f"padded shortcuts as {form}")
                models.append(lower(fused, example(), forms=form))  # type: ignore[arg-type]
            for name, timed in zip(names, _turns(models, backend), strict=True):
                _append(results, {"network": network, "backend": backend, "form": name, **timed})


def measure_speed(results: Path) -> None:
    """Time capture and all passes on a ResNet-50, one thread."""
    if results.exists():
        return
    from tests.torchvision_ops import declare

    declare()
    from torchvision.models import resnet50

    torch.set_num_threads(1)
    model, inputs = resnet50(weights=None).eval(), torch.randn(1, 3, 224, 224)
    seconds: list[float] = []
    rewrites = 0
    for _ in range(5):
        began = time.perf_counter()
        fused = fuse(model, inputs, Fusion())
        widened = time.perf_counter()
        network = as_layers(model, ((inputs,), {}))
        captured = time.perf_counter()
        folded, _ = run_passes(network, ((inputs,), {}), Fusion(), "fold")
        seconds.append((widened - began) + (time.perf_counter() - captured))
        rewrites = len(fused.held) + len(folded)
    _append(
        results,
        {
            "network": "resnet50 of torchvision, 224 × 224",
            "rewrites": rewrites,
            "seconds, median of 5": round(sorted(seconds)[2], 2),
            "largest": round(max(seconds), 2),
        },
    )


def _turns(models: Sequence[nn.Module], backend: str) -> list[dict[str, Any]]:
    """Return time and ratio of all models but the first, in turns with the first."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        artifacts = [
            export(m, example(), folder / str(i), backend=backend, purpose="timing")
            for i, m in enumerate(models)
        ]
        times = latency(artifacts, rounds=9, seconds_per_round=0.2)
    ratios = compare(times, times[0])
    return [
        {"ratio": ratio.medians, "ratio_of_minima": ratio.minima, "time": timed.to_dict()}
        for ratio, timed in zip(ratios[1:], times[1:], strict=True)
    ]


def _task(run: Mapping[str, Any]) -> Task:
    names = ("network", "latency", "backend", "row", "method", "settings", "fused", "seed")
    return Task(**{name: run[name] for name in names})


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (row["network"], row["latency"], row["backend"], row["row"], row["seed"])


def _append(path: Path, row: Mapping[str, Any]) -> None:
    with path.open("a") as stream:
        stream.write(json.dumps(row) + "\n")
