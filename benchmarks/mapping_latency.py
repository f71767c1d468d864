#!/usr/bin/env python3
"""How well mapping knows what a network takes: modelled by the table, by timed layers, and the truth.

    python benchmarks/mapping_latency.py              # a few minutes
    python benchmarks/mapping_latency.py --networks resnet-20

ResNet-20 and a small VGG for images of 32 pixels, with zeros in one pattern, and mapped by rules with either
model of latency. The truth is the whole network in billhook's engine, tuned: the fastest of many runs, in
turns with the dense network. Error is modelled over true time, both relative to the dense network's, less
one. Accuracy is that of one-shot pruning with new batch-norm statistics, without training, on 2,000
validation images of Fashion-MNIST. Every line of benchmarks/results/mapping_latency.jsonl is one choice.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import billhook  # noqa: E402
import billhook.models  # noqa: E402
import billhook.sparse.mapping  # noqa: E402
from benchmarks._sparse_run import ENDS, NETWORKS  # noqa: E402
from benchmarks._training import Protocol, dataset, trained  # noqa: E402
from billhook import BudgetError, Scope  # noqa: E402
from billhook.compile.compiler import assembled, compile_model  # noqa: E402
from billhook.compile.layer_latency import TimedLayers  # noqa: E402
from billhook.compile.session import EngineSession  # noqa: E402
from billhook.compile.tune import tune  # noqa: E402
from billhook.graph.patterns import Pattern, parse_pattern  # noqa: E402
from billhook.graph.structure import viewed  # noqa: E402
from billhook.graph.weights import WeightLayer  # noqa: E402
from billhook.measure.environment import environment  # noqa: E402
from billhook.methods.sparse import MappingSubject  # noqa: E402
from billhook.methods.sparse._patterns import judge  # noqa: E402
from billhook.sparse.mapping import (  # noqa: E402
    LatencyModel,
    LatencyTable,
    map_by_rules,
    network_latency,
    share_out,
)
from billhook.sparse.mapping.candidates import SIZES  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "mapping_latency.jsonl"
CACHE = ROOT / ".cache" / "sparse"
IMAGE = (1, 1, 32, 32)
BOUNDS = (0.7, 0.5, 0.35, 0.25)
SINGLE = (("8x1", 0.8), ("4x1", 0.8), ("unstructured", 0.9), ("kernel_pattern", 0.8), ("filter", 0.5))
MAPPED: dict[str, dict[str, Any]] = {
    "rules": {},
    "rules with all patterns": {"task": "hard", "sizes": ((1, 1), (2, 1), *SIZES)},
}
IMAGES, RECALIBRATION, SECONDS = 2000, 8, 1.5

Choice = tuple[Mapping[str, Pattern | None], Mapping[str, float]]


def choices(
    network: str, model: nn.Module, layers: Sequence[WeightLayer], models: Mapping[str, LatencyModel]
) -> dict[tuple[str, str], Choice]:
    """Return the patterns and zeros that are compared: (row, bound) → of every tensor."""
    scope = Scope(exclude=ENDS[network]).select_weights(layers)
    found: dict[tuple[str, str], Choice] = {}
    for text, share in SINGLE:
        pattern = parse_pattern(text)
        fitting = {la.tensor: pattern for la in scope if la.refusal(pattern) is None}
        found[text, f"{share:.0%} zeros"] = fitting, dict.fromkeys(fitting, share)
    weights = dict(model.named_parameters())
    energies = {la.tensor: viewed(weights[la.tensor].detach(), transposed=False).square() for la in scope}
    block: dict[str, Pattern | None] = {la.tensor: parse_pattern("4x1") for la in scope}
    for name, times in models.items():
        others = times.others(scope) if isinstance(times, TimedLayers) else 0.0
        dense = others + network_latency(times, scope, {}, {})
        for bound in BOUNDS:
            try:
                if name == "timed":
                    shares = share_out(scope, energies, block, bound * dense - others, times)
                    patterns = {t: p for t, p in block.items() if t in shares}
                    found[f"4x1, shared out by {name}", f"≤ {bound:.0%}"] = patterns, shares
                for row, options in MAPPED.items() if name == "timed" else [("rules", {})]:
                    mapped = map_by_rules(
                        scope, latency=bound * dense - others, energies=energies, table=times, **options
                    )
                    found[f"{row}, {name}", f"≤ {bound:.0%}"] = mapped.patterns, mapped.sparsities
            except BudgetError:
                continue
    return found


def true_times(models: Sequence[nn.Module], x: torch.Tensor) -> list[float]:
    """Return the fastest of many runs of each network, in turns, in seconds."""
    sessions = []
    for model in models:
        network = compile_model(model, x, check=False).network
        sessions.append(EngineSession(assembled(network, tune(network))))
    image = np.asarray(x)
    least = [float("inf")] * len(sessions)
    end = perf_counter() + SECONDS * len(sessions)
    while perf_counter() < end:
        for i, session in enumerate(sessions):
            for _ in range(20):
                start = perf_counter()
                session.run([image])
                least[i] = min(least[i], perf_counter() - start)
    for session in sessions:
        session.close()
    return least


def rows(network: str) -> list[dict[str, Any]]:
    """Return one row for each choice of patterns."""
    arguments = {**NETWORKS[network], **({"stem_stride": 1} if network == "resnet-20" else {})}
    source = trained(network, NETWORKS[network], 0, Protocol(), CACHE)
    x = torch.randn(IMAGE, generator=torch.Generator().manual_seed(0))
    model = billhook.models.build(network, **arguments).eval()
    model.load_state_dict(source.state_dict())
    layers = billhook.capture(model, x).weights
    small = billhook.capture(source, dataset().calibration(1, seed=0)[0]).weights
    models: dict[str, LatencyModel] = {"table": LatencyTable.default(), "timed": TimedLayers.of(model, x)}
    wanted = choices(network, model, layers, models)
    sparse = {}
    for key, (patterns, shares) in wanted.items():
        texts = {t: str(p) for t, p in patterns.items()}
        sparse[key] = billhook.sparsify(model, x, pattern=texts, sparsities=dict(shares))
    seconds = true_times([model, *(s.network for s in sparse.values())], x)
    accuracy = judge(_subject(source, small), RECALIBRATION)
    found = []
    for (row, bound), true in zip(wanted, seconds[1:], strict=True):
        patterns, shares = wanted[row, bound]
        modelled = {name: _whole(m, layers, patterns, shares) for name, m in models.items()}
        found.append(
            {
                "network": network,
                "zeros": row,
                "bound": bound,
                "true": f"{true / seconds[0]:.1%}",
                **{name: f"{both[1] / both[0]:.1%}" for name, both in modelled.items()},
                **{
                    f"{name}_error": f"{both[1] / both[0] * seconds[0] / true - 1:+.0%}"
                    for name, both in modelled.items()
                },
                "true_milliseconds": round(1e3 * true, 4),
                "timed_milliseconds": round(1e3 * modelled["timed"][1], 4),
                "accuracy": f"{accuracy(billhook.sparse.mapping.Mapping(patterns, {}, shares)):.1%}",
                "patterns": dict(Counter(map(str, patterns.values()))),
            }
        )
    return found


def _whole(
    model: LatencyModel,
    layers: Sequence[WeightLayer],
    patterns: Mapping[str, Pattern | None],
    shares: Mapping[str, float],
) -> tuple[float, float]:
    """Return the modelled seconds of the network without and with zeros."""
    others = model.others(layers) if isinstance(model, TimedLayers) else 0.0
    dense, sparse = (network_latency(model, layers, p, shares) for p in ({}, patterns))
    return others + dense, others + sparse


def _subject(model: nn.Module, layers: Sequence[WeightLayer]) -> MappingSubject:
    data, labels = dataset().calibration(1024, seed=0)
    batches = [(data[i : i + 128], labels[i : i + 128]) for i in range(0, 1024, 128)]
    images = dataset().evaluation("validation", limit=IMAGES)
    return MappingSubject(model, layers, None, batches, images)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet-20", "small-vgg"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for network in options.networks:
        for row in rows(network):
            print({k: v for k, v in row.items() if k != "network"}, flush=True)
            found.append(row)
    machine = environment()
    note = f"{machine['cpu']}, {machine['os']}. Fastest instruction set, float32, one thread, batch 1."
    RESULTS.write_text("".join(json.dumps(r) + "\n" for r in [*found, {"note": note}]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
