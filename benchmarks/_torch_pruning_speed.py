#!/usr/bin/env python3
"""One prune of ResNet-50, start to end, billhook beside Torch-Pruning.

    python benchmarks/_torch_pruning_speed.py    # in an environment that has torch-pruning 1.6.1

Half of the channels of every group by a group norm: capture or tracing, scores, plan, the smaller network,
and its MACs and parameters. Both take turns in one process, one thread, on the same dense network.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks._methods_torch_pruning import one_prune  # noqa: E402
from billhook import Budget, capture, shrink  # noqa: E402
from billhook.graph import Graph  # noqa: E402
from tests.torchvision_ops import declare  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "torch_pruning_speed.jsonl"
TURNS = 5


def main() -> None:
    """Write one row per tool."""
    torch.set_num_threads(1)
    declare()
    from torchvision.models import resnet50

    model, example = resnet50().eval(), torch.randn(1, 3, 224, 224)

    def plan_apply_cost(graph: Graph, verify: bool = False) -> object:
        outcome = shrink(
            model,
            example,
            method="group_norm",
            allocator="uniform",
            budget=Budget(macs=0.27),
            verify=verify,
            graph=graph,
        )
        return outcome.plan.made_by["cost"], outcome.small()

    trace, prune = one_prune(model, example)
    tools: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
        "billhook": (lambda: capture(model, example), plan_apply_cost),
        "billhook, verified": (lambda: capture(model, example), lambda g: plan_apply_cost(g, verify=True)),
        "Torch-Pruning 1.6.1": (trace, prune),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in tools}
    for turn in range(TURNS + 1):
        for name, (first, then) in tools.items():
            times = [time.process_time()]
            state = first()
            times.append(time.process_time())
            then(state)
            times.append(time.process_time())
            if turn:  # the first one warms up
                seconds[name].append((times[1] - times[0], times[2] - times[1]))
    rows = [
        {
            "tool": name,
            "capture or trace (s)": round(statistics.median(a for a, _ in values), 2),
            "plan + apply + cost (s)": round(statistics.median(b for _, b in values), 2),
            "together (s)": round(statistics.median(a + b for a, b in values), 2),
        }
        for name, values in seconds.items()
    ]
    note = (
        f"ResNet-50 at 224², one thread, median of {TURNS} turns, time on the core, "
        f"torch {torch.__version__}."
    )
    text = "".join(json.dumps(row) + "\n" for row in [*rows, {"note": note}])
    RESULTS.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
