#!/usr/bin/env python3
"""Speed and memory of the graph: ResNet-50 at 224², one core, each figure in a fresh process.

    python benchmarks/graph_speed.py        # benchmarks/results/speed.jsonl, about a minute

Goals: capture and groups ≤ 4 s, ≥ 20,000 costed plans per second, apply ≤ 0.5 s, peak memory of a whole prune
≤ 4 × the model's own size above the import of torch; `billhook --help` < 0.3 s, `import billhook` < 1.5 ×
`import torch`. Times are the best of three processes, because other programs only ever add to them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "speed.jsonl"
REPEAT = 3

# torchvision's ResNet-50 needs torchvision; the same network is a few lines.
NETWORK = """
import resource, sys, time
import torch
from torch import nn
torch.set_num_threads(1)

class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        same = stride == 1 and inputs == 4 * width
        self.down = None if same else nn.Sequential(
            nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + (x if self.down is None else self.down(x)))

def resnet50():
    blocks, inputs = [], 64
    for stage, (width, count) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3))):
        for i in range(count):
            blocks.append(Bottleneck(inputs, width, 2 if stage and not i else 1))
            inputs = 4 * width
    conv = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    stem = [conv, nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)).eval()

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
"""

CAPTURE = (
    NETWORK
    + """
model, x = resnet50(), torch.randn(1, 3, 224, 224)
import billhook.graph as graph
start = time.perf_counter()
captured = graph.capture(model, x)
groups = captured.groups
print(time.perf_counter() - start)
"""
)

COSTING = (
    NETWORK
    + """
import numpy as np
import billhook.graph as graph
costs = graph.capture(resnet50(), torch.randn(1, 3, 224, 224)).costs
counts = np.random.default_rng(0).integers(1, costs.sizes + 1, size=(20000, len(costs.sizes)))
costs.evaluate(counts[:10])
start = time.perf_counter()
costs.evaluate(counts)
print(len(counts) / (time.perf_counter() - start))
"""
)

APPLY = (
    NETWORK
    + """
import numpy as np
import billhook.graph as graph
model = resnet50()
captured = graph.capture(model, torch.randn(1, 3, 224, 224))
plan = graph.make_plan(captured, {g.id: np.arange(g.size) % 2 == 0 for g in captured.groups.prunable})
start = time.perf_counter()
graph.apply(model, plan)
print(time.perf_counter() - start)
"""
)

MEMORY = (
    NETWORK
    + """
before = peak()
model, x = resnet50(), torch.randn(1, 3, 224, 224)
own = sum(t.numel() * t.element_size() for t in model.state_dict().values())
import billhook
plan = billhook.prune(model, x, budget=billhook.Budget(macs=0.5))
billhook.apply(model, plan)
print((peak() - before) / own)
"""
)


def run(code: str, *, threads: str = "1") -> float:
    """Return the number that `code` prints in a fresh process on one core."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": threads}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
        preexec_fn=_one_core,
    )
    return float(done.stdout.split()[-1])


def _one_core() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def wall(arguments: list[str]) -> float:
    """Return how long a process takes from start to end."""
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


def main() -> None:
    """Write one row per figure."""
    rows: list[dict[str, Any]] = []

    def add(figure: str, goal: str, value: float, unit: str, met: bool) -> None:
        rows.append({"figure": figure, "goal": goal, "measured": f"{value:,.4g} {unit}".strip(), "met": met})
        print(json.dumps(rows[-1]), flush=True)

    capture = min(run(CAPTURE) for _ in range(REPEAT))
    add("ResNet-50: capture and groups", "≤ 4 s", capture, "s", capture <= 4)
    costing = max(run(COSTING) for _ in range(REPEAT))
    add("ResNet-50: costing, all four metrics", "≥ 20,000 plans/s", costing, "plans/s", costing >= 20_000)
    applying = min(run(APPLY) for _ in range(REPEAT))
    add("ResNet-50: apply", "≤ 0.5 s", applying, "s", applying <= 0.5)
    memory = min(run(MEMORY) for _ in range(REPEAT))
    add("ResNet-50: peak memory of a prune above import torch", "≤ 4 × model", memory, "× model", memory <= 4)
    shown = min(wall(["-m", "billhook", "--help"]) for _ in range(5))
    add("billhook --help", "< 0.3 s", shown, "s", shown < 0.3)
    pairs = [(wall(["-c", "import billhook"]), wall(["-c", "import torch"])) for _ in range(REPEAT)]
    ratio = min(p[0] for p in pairs) / min(p[1] for p in pairs)
    add("import billhook ÷ import torch", "< 1.5", ratio, "", ratio < 1.5)
    note = "One core, one thread, fresh processes, best of three (start-up: best of five and three)."
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"note": note}]))


if __name__ == "__main__":
    main()
