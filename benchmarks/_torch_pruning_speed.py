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
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks._methods_torch_pruning import one_prune  # noqa: E402
from billhook import Budget, shrink  # noqa: E402
from tests.torchvision_ops import declare  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "torch_pruning_speed.jsonl"
TURNS = 5


def main() -> None:
    """Write one row per tool."""
    torch.set_num_threads(1)
    declare()
    from torchvision.models import resnet50

    model, example = resnet50().eval(), torch.randn(1, 3, 224, 224)

    def ours(verify: bool) -> object:
        outcome = shrink(
            model, example, method="group_norm", allocator="uniform", budget=Budget(macs=0.27), verify=verify
        )
        small = outcome.small()
        return outcome.plan.made_by["cost"], small

    tools = {
        "billhook, capture + plan + apply + cost": lambda: ours(False),
        "billhook, the same, verified": lambda: ours(True),
        "Torch-Pruning 1.6.1, trace + prune + count": one_prune(model, example),
    }
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    for turn in range(TURNS + 1):
        for name, prune in tools.items():
            began = time.process_time()
            prune()
            if turn:  # the first one warms up
                seconds[name].append(time.process_time() - began)
    peer = statistics.median(list(seconds.values())[-1])
    rows = [
        {
            "tool": name,
            "seconds": round(statistics.median(values), 2),
            "relative to Torch-Pruning": round(statistics.median(values) / peer, 2),
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
