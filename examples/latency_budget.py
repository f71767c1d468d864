"""A budget on latency: candidates are exported and measured in ONNX Runtime, beside the original."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

import billhook


def make_network() -> nn.Module:
    layers: list[nn.Module] = []
    for before, after, stride in ((3, 64, 2), (64, 128, 1), (128, 128, 2), (128, 256, 1)):
        layers += [nn.Conv2d(before, after, 3, stride, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10)).eval()


def main() -> None:
    torch.manual_seed(0)
    model = make_network()
    image = torch.randn(1, 3, 32, 32)

    # "Half as long as the original"; latency="0.2ms" would be absolute, and several bounds may hold at once.
    plan = billhook.prune(model, image, budget=billhook.Budget(latency=0.5, params=0.8))
    small = billhook.apply(model, plan)

    with tempfile.TemporaryDirectory() as folder:
        original = billhook.export(model, image, Path(folder) / "original")
        compressed = billhook.export(small, image, Path(folder) / "compressed")
        # In turns, in one run, each in a process of its own: only such times may be compared.
        before, after = billhook.latency([compressed], against=original, seconds_per_round=0.3)
    print(f"original   {before.value * 1e6:7.0f} µs  ± {before.spread:.1%}")
    print(f"compressed {after.value * 1e6:7.0f} µs  ± {after.spread:.1%}")
    print(f"{before.value / after.value:.2f}× faster")


if __name__ == "__main__":
    main()
