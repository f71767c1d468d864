"""Tiny networks for export, one peculiarity each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def convolutions(width: int = 8, depth: int = 2) -> nn.Sequential:
    """A small CNN with batch norms that have seen data."""
    layers: list[nn.Module] = []
    channels = 3
    for _ in range(depth):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(m.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return model


class Attention(nn.Module):
    """Tokens, positions, one attention layer with two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(20, 8), nn.Parameter(torch.randn(6, 8))
        self.qkv, self.project, self.norm = nn.Linear(8, 24), nn.Linear(8, 8), nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.positions
        q, k, v = self.qkv(self.norm(x)).reshape(x.shape[0], 6, 3, 2, 4).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.project(y.transpose(1, 2).flatten(2))
        return self.head(x.mean(1))


class Answers(nn.Module):
    """Applies a function to its inputs, so that a test can say what the network returns."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(self.linear(x), x)


class Keywords(nn.Module):
    """Two tensors, whose order matters, and an option."""

    def forward(self, a: Tensor, b: Tensor | None = None, scale: int = 1) -> Tensor:
        return scale * a if b is None else scale * a - b


class FixedBatch(nn.Module):
    """Its code knows that there are two samples."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(2, 4) + torch.arange(8.0).view(2, 4)


class Branches(nn.Module):
    """Asks the data where to go."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x + 1
        return x


class NoOnnxForm(nn.Module):
    """Uses an operator that ONNX does not have."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.qr(x)[0]
