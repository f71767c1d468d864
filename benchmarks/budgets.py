#!/usr/bin/env python3
"""Budgets: what was asked for, what the plan says it reached, and what a second look finds.

    python benchmarks/budgets.py            # all; benchmarks/results/budgets.jsonl, about 15 minutes
    python benchmarks/budgets.py --quick    # one network

Bounds on MACs, parameters and size are compared with the smaller network itself, captured anew. Latency
bounds are compared with a second export that is timed again, long and in turns with the original.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from billhook import Budget, apply, capture, prune  # noqa: E402
from billhook.deploy import export  # noqa: E402
from billhook.measure import compare, latency  # noqa: E402
from billhook.models import build  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "budgets.jsonl"
FORMULAS = {"macs": "macs", "params": "params", "size": "bytes"}
FRACTIONS = (0.75, 0.5, 0.3)

NETWORKS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "resnet-20": (
        {"channels": [32, 64, 96], "stem_stride": 2, "shortcut": "B", "in_channels": 1},
        (1, 1, 28, 28),
    ),
    "small-vgg": ({"in_channels": 1}, (1, 1, 28, 28)),
    "mobilenet-v2": ({}, (1, 3, 32, 32)),
    "densenet-40": ({}, (1, 3, 32, 32)),
}


Result = dict[str, Any]


def formula_row(name: str, model: nn.Module, example: torch.Tensor, metric: str, bound: float) -> Result:
    """Return one row for a bound that formulas decide."""
    plan = prune(model, example, budget=Budget.from_dict({metric: bound}))
    before = capture(model, example).costs.cost().to_dict()[FORMULAS[metric]]
    after = capture(apply(model, plan), example).costs.cost().to_dict()[FORMULAS[metric]]
    met = after <= bound * before
    return {"network": name, "metric": metric, "asked": bound, "reached": after / before, "met": met}


def latency_row(name: str, model: nn.Module, example: torch.Tensor, bound: float) -> Result:
    """Return one row for a latency bound, timed again from scratch."""
    plan = prune(model, example, budget=Budget(latency=bound))
    with tempfile.TemporaryDirectory() as folder:
        original = export(model, example, Path(folder) / "original")
        smaller = export(apply(model, plan), example, Path(folder) / "smaller")
        times = latency([original, smaller])
        found = compare(times, times[0])[1]
    said = plan.made_by["reached"]["latency"] / plan.made_by["original"]["latency"]
    return {
        "network": name,
        "metric": "latency",
        "asked": bound,
        "reached": found.medians,
        "met": found.medians <= 1.05 * bound,
        "when decided": said,
        "wall medians": found.wall_medians,
        "networks timed": plan.made_by["measured"],
    }


def main() -> None:
    """Write one row per network and bound."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one network only")
    names = list(NETWORKS)[: 1 if parser.parse_args().quick else None]
    rows: list[Result] = []
    for name in names:
        arguments, shape = NETWORKS[name]
        torch.manual_seed(0)
        model, example = build(name, **arguments).eval(), torch.randn(shape)
        for bound in FRACTIONS:
            rows += [formula_row(name, model, example, metric, bound) for metric in FORMULAS]
            rows.append(latency_row(name, model, example, bound))
            print(json.dumps(rows[-1]), flush=True)
    note = (
        "Untrained networks, seed 0, method l2, widths as ONNX Runtime likes them. Latency: ONNX Runtime, "
        "float32, one thread, batch 1, core time, in turns with the original; "
        f"torch {torch.__version__}. Met: never above the bound; for latency, a second measurement at most "
        "5 % above it."
    )
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"note": note}]))


if __name__ == "__main__":
    main()
