"""Fine-grained sparsity: four of five weights become zero in training, and the file shrinks with them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

import billhook
from billhook.sparse.holding import holds
from billhook.train import holding


def make_network(width: int = 32) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)),
    )


def main() -> None:
    torch.manual_seed(0)
    model, image = make_network().eval(), torch.randn(1, 3, 16, 16)
    data = [(torch.randn(16, 3, 16, 16), torch.randint(10, (16,))) for _ in range(8)]

    # ADMM pulls blocks of four outputs to zero while it trains; the first and the last layer stay dense.
    sparse = billhook.sparsify(
        model,
        image,
        pattern="4x1",
        sparsity=0.8,
        method="admm",
        scope=billhook.Scope(exclude=("0", "8")),
        data=data,
    )
    print(f"{sparse.weight_sparsity:.1%} of the weights in scope are zero")
    print(f"verified: {billhook.verify(model, sparse.plan, image).exact}")

    # Any training of your own goes on without a zero coming back.
    network = sparse.network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    with holding(network, optimizer, sparse.plan.patterns):
        for inputs, targets in data:
            nn.functional.cross_entropy(network(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert holds(network, sparse.plan.patterns) is None

    with tempfile.TemporaryDirectory() as folder:
        billhook.save(folder, network.eval(), sparse.plan)
        stored = (Path(folder) / "weights.safetensors").stat().st_size
        again = billhook.load(folder, make_network).eval()
    with torch.no_grad():
        assert torch.equal(again(image), network(image))
    print(f"{billhook.cost(model, image).bytes:,} bytes dense, {stored:,} bytes stored")


if __name__ == "__main__":
    main()
