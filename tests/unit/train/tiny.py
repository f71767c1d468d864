"""A tiny network, data and callbacks that the tests of training share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from billhook.train import Callback, FitConfig, StepContext

EXACT = FitConfig(epochs=2, lr=0.1, precision="32-true", accelerator="cpu")


def tiny_net(seed: int = 0, dropout: float = 0.0) -> nn.Sequential:
    """Return a convolutional network for 6 × 6 images of two channels, three classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(4, 6, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(24, 3),
        )


class TinyBatches:
    """Images whose class is visible in their mean; the order depends on the epoch."""

    def __init__(self, count: int = 5, size: int = 8) -> None:
        generator = torch.Generator().manual_seed(7)
        self.targets = torch.randint(0, 3, (count * size,), generator=generator)
        noise = torch.randn(count * size, 2, 6, 6, generator=generator)
        self.inputs = noise + (self.targets - 1.0)[:, None, None, None]
        self.count, self.size = count, size

    def __len__(self) -> int:
        return self.count

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.targets), generator=torch.Generator().manual_seed(epoch))
        for i in range(start, self.count):
            rows = order[i * self.size : (i + 1) * self.size]
            yield self.inputs[rows], self.targets[rows]


class StopAt(Callback):
    """Interrupts the run after some step, the first time."""

    def __init__(self, step: int | None, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.stop, self.error = step, error

    def after_step(self, context: StepContext) -> None:
        if context.step == self.stop:
            raise self.error


class NoisyDecay(Callback):
    """Uses every hook, random numbers and a memory: all that a resume could get wrong."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.memory: dict[str, Any] = {"steps": 0, "mean": torch.zeros(4)}

    def before_step(self, context: StepContext) -> None:
        self.calls.append(f"before {context.step} {context.epoch}")

    def loss_term(self, context: StepContext) -> Tensor:
        return 1e-3 * scale(context.model).abs().sum() * torch.rand(())

    def after_backward(self, context: StepContext) -> None:
        gradient = scale(context.model).grad
        assert gradient is not None
        self.memory["mean"] = 0.9 * self.memory["mean"] + 0.1 * gradient

    def after_step(self, context: StepContext) -> None:
        self.memory["steps"] += 1
        with torch.no_grad():
            scale(context.model).sub_(1e-3 * self.memory["mean"])

    def after_epoch(self, context: StepContext) -> None:
        self.calls.append(f"epoch {context.epoch} after {context.step}")

    def state_dict(self) -> dict[str, Any]:
        return self.memory

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.memory = dict(state)


def scale(model: nn.Module) -> Tensor:
    """Return the scale of the batch norm of `tiny_net`."""
    return model.get_parameter("1.weight")


def assert_same_weights(a: nn.Module, b: nn.Module) -> None:
    """Compare all parameters and buffers, bit by bit."""
    for (name, x), (_, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert torch.equal(x, y), f"{name} differs by {(x - y).abs().max()}"
