"""Networks of a user, named on the command line as nets.py:callable."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """For 8×8 digits: a stem, a residual block with a depthwise convolution, a classifier."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.expand = nn.Conv2d(width, 2 * width, 1)
        self.depthwise = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.norm = nn.BatchNorm2d(2 * width)
        self.project = nn.Conv2d(2 * width, width, 1)
        self.classifier = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(self.expand(x).relu())).relu()
        return self.classifier((x + self.project(y)).mean((2, 3)))


def residual(width: int = 16) -> nn.Module:
    return Residual(width)


class Blocks(nn.Module):
    """For 8×8 digits: a stem, two stages of two residual blocks, a classifier."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        widths = ((width, width), (width, width), (width, 2 * width), (2 * width, 2 * width))
        self.blocks = nn.Sequential(*(Block(before, after) for before, after in widths))
        self.classifier = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.blocks(self.stem(x)).mean((2, 3)))


class Block(nn.Module):
    """relu(bn(conv) relu bn(conv) + shortcut), with a projection where the width changes."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        stride = 1 if before == after else 2
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, padding=1), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, padding=1), nn.BatchNorm2d(after)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(y)) + self.shortcut(x)).relu()


def blocks(width: int = 16) -> nn.Module:
    return Blocks(width)


class Branches(nn.Module):
    """Takes two inputs by name and returns a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3))
        self.words = nn.Embedding(50, 16)
        self.mix = nn.Linear(16, 24)
        self.out = nn.Linear(24, 4)

    def forward(self, image: Tensor, words: Tensor) -> Tensor:
        both = self.image(image).mean((2, 3)) + self.words(words).mean(1)
        return self.out(self.mix(both).relu())


def branches() -> nn.Module:
    return Branches()


class DataDependent(nn.Module):
    """Cannot be captured: how it goes on depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if y.sum() > 0:
            y = y * 2
        return y


def data_dependent() -> nn.Module:
    return DataDependent()


def unseeded() -> nn.Module:
    """Return a network that is another one each time it is made."""
    model = Residual()
    nn.init.normal_(model.classifier.weight, generator=torch.Generator().manual_seed(torch.seed() % 2**31))
    return model


def no_network() -> int:
    return 3


def broken() -> nn.Module:
    raise RuntimeError("no licence for this network")
