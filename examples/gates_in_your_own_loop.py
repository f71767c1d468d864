"""Let a method decide while your own loop trains: billhook's callbacks, driven by hand.

The same callback works in `billhook.shrink`, which is billhook's loop, and under Lightning: see
`gates_under_lightning.py`.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import billhook
from billhook.train import CallbackDriver


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


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    lr: float,
    callback: billhook.MethodCallback | None = None,
) -> billhook.Plan | None:
    """Your own loop, with the few lines that drive a callback."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True)
    steps = epochs * -(-len(images) // 64)
    driver = CallbackDriver([callback] if callback else [], model, optimizer, total_steps=steps)
    model.train()
    with driver.attached():  # acts before and after every optimizer.step()
        for _ in range(epochs):
            for batch in torch.randperm(len(images)).split(64):
                driver.before_step(images[batch], labels[batch])
                loss = driver.add_terms(F.cross_entropy(model(images[batch]), labels[batch]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            driver.after_epoch()
    return next(iter(driver.finish()), None)


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
    print(f"original      {accuracy(model, images[held_out], labels[held_out]):.1%}")

    budget = billhook.Budget(macs=0.4)
    gates = billhook.pruning_callback(model, images[:1], method="gator", budget=budget)
    plan = train(model, images[training], labels[training], epochs=8, lr=0.05, callback=gates)
    assert plan is not None
    small = billhook.apply(model, plan)
    print(f"gated         {accuracy(small, images[held_out], labels[held_out]):.1%}")

    train(small, images[training], labels[training], epochs=4, lr=0.02)
    print(f"fine-tuned    {accuracy(small, images[held_out], labels[held_out]):.1%}")
    print(f"kept          {plan.counts}")


if __name__ == "__main__":
    main()
