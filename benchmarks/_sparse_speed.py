"""How long projections and the steps of ADMM take."""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

import billhook
from benchmarks._sparse_run import NETWORKS
from benchmarks._training import BATCH, untrained
from billhook.graph.patterns import parse_pattern
from billhook.graph.structure import Structure, viewed
from billhook.graph.weights import WeightLayer
from billhook.train import CallbackDriver

PATTERNS = ("unstructured", "4x1", "8x1", "8x4", "kernel_pattern", "filter", "2:4", "unified:4x4")
ROUNDS, STEPS = 5, 40


def measure_speed(path: Path) -> None:
    """Write a row per pattern for a projection of all layers of a ResNet-50, and one for a step of ADMM."""
    torch.set_num_threads(1)
    rows = [*_projections(), _step()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _projections() -> list[dict[str, Any]]:
    torch.manual_seed(0)
    layers = _resnet_50()
    weights = {la.tensor: torch.randn(la.shape) for la in layers}
    rows = []
    for name in PATTERNS:
        pattern = parse_pattern(name)
        fitting = [la for la in layers if pattern.refusal(la.view, la.groups) is None]
        seconds = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for la in fitting:
                parts = pattern.choose(viewed(weights[la.tensor]), pattern.unit_sparsity(0.8, la.view))
                Structure(pattern, la.shape, parts).project(weights[la.tensor])
            seconds.append(time.perf_counter() - began)
        rows.append(
            {
                "what": f"projection of all layers of a ResNet-50 onto {name} at 80 %",
                "layers": len(fitting),
                "weights": sum(weights[la.tensor].numel() for la in fitting),
                "seconds": round(median(seconds), 3),
                "slowest": round(max(seconds), 3),
            }
        )
    return rows


def _resnet_50() -> list[WeightLayer]:
    """Return the layers of a ResNet-50 for 1,000 classes, by their shapes."""
    shapes = [(64, 3, 7, 7)]
    before = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for number in range(blocks):
            shapes += [(width, before, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
            if number == 0:
                shapes.append((4 * width, before, 1, 1))
            before = 4 * width
    shapes.append((1000, 2048))
    return [
        WeightLayer(str(i), str(i), "linear" if len(s) == 2 else "conv", s, s[2:])
        for i, s in enumerate(shapes)
    ]


def _step() -> dict[str, Any]:
    """Return the time of a training step with ADMM relative to one without, in turns."""
    model = untrained("resnet-20", NETWORKS["resnet-20"], 0)
    with_admm, without = (
        _Loop(model, admm=True),
        _Loop(untrained("resnet-20", NETWORKS["resnet-20"], 0), admm=False),
    )
    for loop in (with_admm, without):
        loop.steps(5)
    ratios = []
    for _ in range(9):
        slow, fast = with_admm.steps(STEPS // 4), without.steps(STEPS // 4)
        ratios.append(slow / fast)
    return {
        "what": "a training step with ADMM relative to one without (ResNet-20, 4x1, batch 128)",
        "ratio": round(median(ratios), 4),
        "largest": round(max(ratios), 4),
    }


class _Loop:
    """Training steps on one batch of noise."""

    def __init__(self, model: nn.Module, *, admm: bool) -> None:
        self.model = model.train()
        self.x, self.y = torch.randn(BATCH, 1, 28, 28), torch.randint(10, (BATCH,))
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        callbacks = []
        if admm:
            callbacks.append(
                billhook.sparsifying_callback(model, self.x[:1], sparsity=0.8, method="admm", pattern="4x1")
            )
        self.driver = CallbackDriver(callbacks, model, self.optimizer, total_steps=1000)

    def steps(self, count: int) -> float:
        """Return the seconds that so many steps take."""
        began = time.perf_counter()
        with self.driver.attached():
            for _ in range(count):
                self.driver.before_step(self.x, self.y)
                loss = self.driver.add_terms(nn.functional.cross_entropy(self.model(self.x), self.y))
                loss.backward()
                self.optimizer.step()
                self.optimizer.zero_grad()
        return time.perf_counter() - began
