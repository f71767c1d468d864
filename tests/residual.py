"""Networks with residual blocks of every style, for tests of whole branches that leave."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from billhook import models
from billhook.graph import Graph, capture
from tests.networks import build
from tests.oracle import randomize


class BasicBlock(nn.Module):
    """As in torchvision: everything that can work in place does."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride > 1 or before != after:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class Bottleneck(BasicBlock):
    """Three convolutions; two groups of channels live in the branch."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__(before, after, stride)
        inner = after // 2
        self.conv1, self.bn1 = nn.Conv2d(before, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, after, 1, bias=False), nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += identity
        return self.relu(out)


class PreActivation(nn.Module):
    """The addition is the last step, so one sum is the next one's operand; `x += …` in every second block."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(after), nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.same = stride == 1 and before == after
        self.shortcut = nn.Identity() if self.same else nn.Conv2d(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(functional.relu(self.bn1(x), inplace=True))
        out = self.conv2(functional.relu(self.bn2(out), inplace=True))
        return self.shortcut(x) + out


class Tokens(nn.Module):
    """A transformer layer with two branches; sizes of the batch are written into views."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 24), nn.Linear(24, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        parts = self.qkv(self.norm1(x)).view(batch, tokens, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*parts.unbind(0))
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Stages(nn.Module):
    """A stem, three blocks and a classifier."""

    def __init__(self, block: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.stem, self.bn, self.relu = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
        )
        self.layer1 = nn.Sequential(block(8, 8), block(8, 8))
        self.layer2 = nn.Sequential(block(8, 16, 2))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.relu(self.bn(self.stem(x)))))
        return self.fc(x.mean((2, 3)))


class Transformer(nn.Module):
    """Patches, two layers, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.layers = nn.Conv2d(3, 16, 4, 4), nn.ModuleList([Tokens(), Tokens()])
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return self.fc(x.mean(1))


RESIDUAL: dict[str, Callable[[], nn.Module]] = {
    "functions": lambda: build("residual")[0],
    "attention": lambda: build("attention")[0],
    "squeeze": lambda: build("depthwise_squeeze")[0],
    "basic": lambda: Stages(BasicBlock),
    "bottleneck": lambda: Stages(Bottleneck),
    "pre-activation": lambda: Stages(PreActivation),
    "transformer": Transformer,
    "resnet-20": lambda: models.build("resnet-20", width=4, num_classes=5),
}


@cache
def residual_graph(name: str) -> Graph:
    """Return the graph of a network; it holds no weights, so all tests may share it."""
    return capture(*residual(name))


def residual(name: str) -> tuple[nn.Module, Tensor]:
    """Return a network in eval mode with weights under which every branch matters, and two images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = torch.randn(2, 3, 8, 8)
        return randomize(RESIDUAL[name]().eval(), 0, x), x
