"""Search for the widths that keep the most accuracy at a third of the MACs."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import billhook
from billhook.search import SearchProblem, search


def make_network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )


def train(model: nn.Module, images: Tensor, labels: Tensor, *, epochs: int, lr: float) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    return (model(images).argmax(1) == labels).float().mean().item()


def main() -> None:
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 16
    labels = torch.from_numpy(digits.target).long()
    training, judging, held_out = slice(0, 1100), slice(1100, 1450), slice(1450, None)
    model = make_network()
    train(model, images[training], labels[training], epochs=8, lr=0.05)
    print(f"original {accuracy(model, images[held_out], labels[held_out]):.1%}")

    # Candidates are judged without training on images of their own; a file as `study` would keep them.
    problem = SearchProblem(
        model,
        images[:1],
        billhook.Budget(macs=0.33),
        data=list(zip(images[training].split(64), labels[training].split(64), strict=True)),
        validation=[(images[judging], labels[judging])],
        round_to=4,
    )
    found = search(problem, "tpe", trials=60)
    assert found.best is not None
    print(f"found {found.best.accuracy:.1%} on the judging images, at {found.best.costs['macs']:,.0f} MACs")

    # The winner, with least squares for what has left, and a little training.
    small = found.network()
    print(f"winner {accuracy(small, images[held_out], labels[held_out]):.1%} before training")
    train(small, images[training], labels[training], epochs=4, lr=0.02)
    print(f"winner {accuracy(small, images[held_out], labels[held_out]):.1%} after training")
    cost = billhook.cost(small, images[:1]).macs / billhook.cost(model, images[:1]).macs
    print(f"MACs {cost:.1%} of the original")


if __name__ == "__main__":
    main()
