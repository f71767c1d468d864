"""Fusion: shortcuts become prunable, blocks come apart, and what is left runs in the form that is fastest."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import billhook
from billhook.deploy import lower_by_cost
from billhook.fuse import fuse


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + x).relu()


def make_network(width: int = 64) -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
    blocks = nn.Sequential(*(Block(width) for _ in range(3)))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
    return nn.Sequential(stem, blocks, head).eval()


def main() -> None:
    torch.manual_seed(0)
    model = make_network()
    image = torch.randn(1, 3, 32, 32)

    # What can be rewritten; the rewritten network computes the same.
    print(fuse(model, image))
    print(f"groups {len(billhook.groups(model, image).prunable)} before", end=", ")
    print(f"{len(billhook.groups(fuse(model, image).network, image).prunable)} after")

    # The plan names the fusions, so it is one for `model` itself.
    plan = billhook.prune(model, image, fusion=billhook.Fusion(), budget=billhook.Budget(macs=0.35))
    small = billhook.apply(model, plan)  # ... here it would be fine-tuned, batch norms and all

    # Shortcuts that have lost channels can run in several forms; the runtime says which is fastest. Some have
    # multiplications of their own, so there is a little room for them.
    macs = billhook.cost(model, image).macs
    lowered = lower_by_cost(small, image, fits=lambda cost: cost.macs <= 0.4 * macs)
    for form, ratio in lowered.ratios.items():
        print(f"shortcuts as {form}: {ratio:.2f}")

    with tempfile.TemporaryDirectory() as folder:
        original = billhook.export(model, image, Path(folder) / "original")
        compressed = billhook.export(lowered.network, image, Path(folder) / "compressed")
        before, after = billhook.latency([compressed], against=original, seconds_per_round=0.2)
    print(f"{before.value / after.value:.2f}× faster")


if __name__ == "__main__":
    main()
