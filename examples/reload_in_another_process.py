"""Save a smaller network as a plan and its tensors, and load it in another process: no pickle is involved."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

import billhook


def make_network() -> nn.Module:
    """Your code makes the original network, with any weights; the plan makes it smaller."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def save(folder: Path) -> None:
    torch.manual_seed(0)
    model, image = make_network().eval(), torch.ones(1, 3, 16, 16)
    plan = billhook.prune(model, image, budget=billhook.Budget(params=0.5))
    small = billhook.apply(model, plan)
    billhook.save(folder, small, plan)
    print("saved: ", *sorted(f"{p.name} ({p.stat().st_size:,} B)" for p in folder.iterdir()))
    print("before:", [round(v, 4) for v in small(image)[0].tolist()][:4])


def load(folder: Path) -> None:
    small = billhook.load(folder, make_network).eval()
    print("after: ", [round(v, 4) for v in small(torch.ones(1, 3, 16, 16))[0].tolist()][:4])


def main() -> None:
    if len(sys.argv) > 1:
        load(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        sys.stdout.flush()
        subprocess.run([sys.executable, __file__, folder], check=True)


if __name__ == "__main__":
    main()
