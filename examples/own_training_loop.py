"""Prune a network and repair it with a training loop of your own."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import billhook


def make_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def train(model: nn.Module, images: Tensor, labels: Tensor, *, epochs: int, lr: float) -> None:
    """Your own loop, whatever it does."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    return (model(images).argmax(1) == labels).float().mean().item()


def main() -> None:
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 16
    labels = torch.from_numpy(digits.target).long()
    training, held_out = slice(0, 1400), slice(1400, None)

    model = make_network()
    train(model, images[training], labels[training], epochs=8, lr=0.1)
    print(f"original     {accuracy(model, images[held_out], labels[held_out]):.1%}")

    plan = billhook.prune(model, images[:1], budget=billhook.Budget(macs=0.4))
    small = billhook.apply(model, plan)  # an ordinary nn.Module with fewer channels
    print(f"pruned       {accuracy(small, images[held_out], labels[held_out]):.1%}")

    train(small, images[training], labels[training], epochs=4, lr=0.02)
    print(f"fine-tuned   {accuracy(small, images[held_out], labels[held_out]):.1%}")

    before, after = billhook.cost(model, images[:1]), billhook.cost(model, images[:1], plan)
    print(f"MACs         {before.macs:,} → {after.macs:,}")


if __name__ == "__main__":
    main()
