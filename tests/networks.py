"""Small networks, one hard construct each, for tests that hold for any network.

    @pytest.mark.parametrize("name", NETWORKS)
    def test_something(name: str) -> None:
        model, inputs = build(name)

Weights, running statistics and inputs are random but the same in every run; models are in eval mode.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 5


class Plain(nn.Module):
    """Convolutions in a row, with and without batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 24, 3, stride=2, bias=False), nn.BatchNorm2d(24)
        self.conv3 = nn.Conv2d(24, 32, 1)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return self.head(self.conv3(x).relu().mean((2, 3)))


class Residual(nn.Module):
    """A trunk to which two blocks add; the second has its own projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.inner1, self.bn1 = nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.outer1, self.bn2 = nn.Conv2d(24, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.inner2, self.bn3 = nn.Conv2d(16, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.outer2, self.bn4 = nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32)
        self.project = nn.Conv2d(16, 32, 1, stride=2)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.stem(x)).relu()
        x = (x + self.bn2(self.outer1(self.bn1(self.inner1(x)).relu()))).relu()
        x = (self.project(x) + self.bn4(self.outer2(self.bn3(self.inner2(x)).relu()))).relu()
        return self.head(x.mean((2, 3)))


class Concat(nn.Module):
    """Dense connections: later layers read all earlier ones."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.dense1 = nn.Conv2d(16, 8, 3, padding=1)
        self.bn, self.dense2 = nn.BatchNorm2d(24), nn.Conv2d(24, 8, 3, padding=1)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = torch.cat([x, self.dense1(x).relu()], 1)
        x = torch.cat([x, self.dense2(self.bn(x).relu())], 1)
        return self.head(x.mean((2, 3)))


class DepthwiseSqueeze(nn.Module):
    """An inverted bottleneck with squeeze-and-excite, and a residual around it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.expand, self.bn1 = nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32)
        self.depth, self.bn2 = nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False), nn.BatchNorm2d(32)
        self.squeeze, self.excite = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.reduce, self.bn3 = nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.hardswish(self.stem(x))
        y = functional.relu6(self.bn1(self.expand(x)))
        y = functional.relu6(self.bn2(self.depth(y)))
        y = y * self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.head((x + self.bn3(self.reduce(y))).mean((2, 3)))


class Grouped(nn.Module):
    """A convolution in four groups between two ordinary ones."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.grouped, self.bn = nn.Conv2d(16, 32, 3, padding=1, groups=4), nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 16, 1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.grouped(self.conv1(x).relu())).relu()
        return self.head(self.conv2(x).relu().mean((2, 3)))


class Flatten(nn.Module):
    """Every channel becomes four features of a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 12, 3, padding=1)
        self.hidden = nn.Linear(48, 20)
        self.head = nn.Linear(20, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.conv1(x).relu()).relu()
        x = functional.adaptive_avg_pool2d(x, 2).flatten(1)
        return self.head(self.hidden(x).relu())


class ChunkConcat(nn.Module):
    """Split, work on one half, put everything side by side (YOLO's C2f)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, padding=1)
        self.branch = nn.Conv2d(12, 12, 3, padding=1)
        self.merge = nn.Conv2d(36, 16, 1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.stem(x).relu().chunk(2, 1)
        x = self.merge(torch.cat([first, second, self.branch(second).relu()], 1)).relu()
        return self.head(x.mean((2, 3)))


class Shuffle(nn.Module):
    """Two halves are interleaved channel by channel (ShuffleNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 16, 1)
        self.merge = nn.Conv2d(32, 16, 1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x).relu(), self.right(x).relu()], 1)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, -1, height, width)
        return self.head(self.merge(x).relu().mean((2, 3)))


class Attention(nn.Module):
    """Hand-written attention with four heads over a patch embedding, and a feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.query_key_value, self.project = nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        batch, tokens, width = x.shape
        parts = self.query_key_value(self.norm(x)).reshape(batch, tokens, 3, 4, width // 4)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (query @ key.transpose(-2, -1) / (width // 4) ** 0.5).softmax(-1)
        x = x + self.project((weights @ value).transpose(1, 2).reshape(batch, tokens, -1))
        x = x + self.down(functional.gelu(self.up(x)))
        return self.head(x.mean(1))


class Transposed(nn.Module):
    """An encoder and decoder with a skip connection; the output is an image."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Conv2d(3, 16, 3, padding=1)
        self.down2 = nn.Conv2d(16, 24, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(24, 16, 2, stride=2)
        self.out = nn.Conv2d(32, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down1(x).relu()
        x = self.up(self.down2(skip).relu()).relu()
        return self.out(torch.cat([x, skip], 1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": Plain,
    "residual": Residual,
    "concat": Concat,
    "depthwise_squeeze": DepthwiseSqueeze,
    "grouped": Grouped,
    "flatten": Flatten,
    "chunk_concat": ChunkConcat,
    "shuffle": Shuffle,
    "attention": Attention,
    "transposed": Transposed,
}


def build(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """Return the network called `name` and a batch of two example inputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = NETWORKS[name]().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):  # fresh statistics and scales would hide mistakes
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        return model, torch.randn(2, 3, 8, 8)


def batches(name: str, count: int = 2, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Return batches (inputs, classes) that cross entropy can be taken of."""
    model, _ = build(name)
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        inputs = torch.randn(4, 3, 8, 8, generator=generator)
        with torch.no_grad():
            shape = model(inputs).argmax(1).shape
        made.append((inputs, torch.randint(CLASSES, tuple(shape), generator=generator)))
    return made
