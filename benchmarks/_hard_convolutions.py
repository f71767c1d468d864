"""Small convolutional networks with one hard construct each; see hard_graphs.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 5


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Vision(nn.Module):
    """A stem and a classifier around `body`, which subclasses write."""

    def __init__(self, width: int, last: int) -> None:
        super().__init__()
        self.stem = conv(3, width)
        self.head = nn.Linear(last, CLASSES)

    def body(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class ChunkConcat(Vision):
    """YOLO's C2f: chunk, a chain on the second half, everything concatenated."""

    def __init__(self) -> None:
        super().__init__(8, 16)
        self.first = conv(8, 16, 1)
        self.steps = nn.ModuleList([nn.Sequential(conv(8, 8), conv(8, 8)) for _ in range(2)])
        self.last = conv(32, 16, 1)

    def body(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for step in self.steps:
            parts.append(parts[-1] + step(parts[-1]))
        return self.last(torch.cat(parts, 1))


class UnevenSplit(Vision):
    """Parts of different sizes go different ways."""

    def __init__(self) -> None:
        super().__init__(16, 12)
        self.left, self.right = conv(6, 8), conv(10, 4, 1)

    def body(self, x: Tensor) -> Tensor:
        left, right = torch.split(x, [6, 10], 1)
        return torch.cat((self.left(left), self.right(right)), 1)


class AddSlices(Vision):
    """Two slices of one tensor are added."""

    def __init__(self) -> None:
        super().__init__(16, 8)
        self.next = conv(8, 8)

    def body(self, x: Tensor) -> Tensor:
        return self.next(x[:, :8] + x[:, 8:])


class OverlappingSlices(Vision):
    """Two slices overlap, so that channels hang together in chains."""

    def __init__(self) -> None:
        super().__init__(16, 12)
        self.next = conv(12, 12)

    def body(self, x: Tensor) -> Tensor:
        return self.next(x[:, :12] + x[:, 4:])


class StridedSlice(Vision):
    """Every second channel goes another way."""

    def __init__(self) -> None:
        super().__init__(16, 12)
        self.even, self.odd = conv(8, 6), conv(8, 6)

    def body(self, x: Tensor) -> Tensor:
        return torch.cat((self.even(x[:, ::2]), self.odd(x[:, 1::2])), 1)


class Shuffle(Vision):
    """ShuffleNet v1: grouped convolutions with a channel shuffle between them."""

    def __init__(self) -> None:
        super().__init__(16, 32)
        self.one, self.two = conv(16, 16, 1, groups=2), conv(16, 32, 1, groups=2)

    def body(self, x: Tensor) -> Tensor:
        x = self.one(x)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.two(x)


class SplitShuffle(Vision):
    """ShuffleNet v2: one half passes, the other is worked on, both are shuffled together."""

    def __init__(self) -> None:
        super().__init__(16, 16)
        self.branches = nn.ModuleList(
            [nn.Sequential(conv(8, 8, 1), conv(8, 8, 3, groups=8), conv(8, 8, 1)) for _ in range(2)]
        )
        self.shuffle = nn.ChannelShuffle(2)

    def body(self, x: Tensor) -> Tensor:
        for branch in self.branches:
            passing, worked = x.chunk(2, 1)
            x = self.shuffle(torch.cat((passing, branch(worked)), 1))
        return x


class Dense(Vision):
    """DenseNet: batch norm and convolution over everything so far."""

    def __init__(self) -> None:
        super().__init__(8, 24)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8 + 4 * i) for i in range(4)])
        self.convs = nn.ModuleList([nn.Conv2d(8 + 4 * i, 4, 3, padding=1) for i in range(4)])

    def body(self, x: Tensor) -> Tensor:
        for norm, layer in zip(self.norms, self.convs, strict=True):
            x = torch.cat((x, layer(norm(x).relu())), 1)
        return x


class Projection(Vision):
    """Residual blocks with a projecting shortcut."""

    def __init__(self) -> None:
        super().__init__(8, 16)
        self.inner, self.outer = conv(8, 12), nn.Conv2d(12, 16, 3, 2, 1)
        self.shortcut = nn.Conv2d(8, 16, 1, 2)
        self.again = conv(16, 16)

    def body(self, x: Tensor) -> Tensor:
        x = (self.shortcut(x) + self.outer(self.inner(x))).relu()
        return x + self.again(x)


class PaddedShortcut(Vision):
    """ResNet's option A: the shortcut is subsampled and padded with zero channels."""

    def __init__(self) -> None:
        super().__init__(8, 16)
        self.inner, self.outer = conv(8, 12, stride=2), nn.Conv2d(12, 16, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return (shortcut + self.outer(self.inner(x))).relu()


class SqueezeExcite(Vision):
    """A gate per channel, computed from all channels."""

    def __init__(self) -> None:
        super().__init__(16, 16)
        self.squeeze, self.excite = nn.Linear(16, 4), nn.Linear(4, 16)

    def body(self, x: Tensor) -> Tensor:
        gate = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        return x * gate[:, :, None, None]


class SpatialGate(Vision):
    """CBAM's gate per pixel from the mean and the maximum over channels: these channels are held."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.wide = conv(8, 16)
        self.narrow = conv(16, 8)
        self.gate = nn.Conv2d(2, 1, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        x = self.narrow(self.wide(x))
        both = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)
        return x * self.gate(both).sigmoid()


class ChannelConvolution(Vision):
    """ECA: a 1d convolution slides over the channels, which must stay."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.wide, self.narrow = conv(8, 16), conv(16, 8)
        self.slide = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def body(self, x: Tensor) -> Tensor:
        x = self.narrow(self.wide(x))
        pooled = F.adaptive_avg_pool2d(x, 1).squeeze(-1).transpose(-1, -2)
        gate = self.slide(pooled).transpose(-1, -2).unsqueeze(-1).sigmoid()
        return x * gate.expand_as(x)


class Separable(Vision):
    """Depthwise convolutions, one of them with two outputs per channel."""

    def __init__(self) -> None:
        super().__init__(8, 16)
        self.depth, self.point = conv(8, 8, groups=8), conv(8, 12, 1)
        self.pairs = nn.Conv2d(12, 24, 3, padding=1, groups=12)
        self.last = conv(24, 16, 1)

    def body(self, x: Tensor) -> Tensor:
        return self.last(F.relu6(self.pairs(self.point(self.depth(x)))))


class FewGroups(Vision):
    """Two groups of many channels: the same position leaves in both."""

    def __init__(self) -> None:
        super().__init__(16, 24)
        self.grouped = conv(16, 24, groups=2)

    def body(self, x: Tensor) -> Tensor:
        return self.grouped(x)


class ManyGroups(Vision):
    """Eight groups of two channels: whole groups leave, input and output together (ResNeXt)."""

    def __init__(self) -> None:
        super().__init__(16, 12)
        self.grouped, self.last = conv(16, 16, groups=8), conv(16, 12, 1)

    def body(self, x: Tensor) -> Tensor:
        return self.last(self.grouped(x))


class UNet(nn.Module):
    """Transposed convolutions up, skips by concatenation, an image out."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = conv(3, 8), conv(8, 12, stride=2), conv(12, 16, stride=2)
        self.up2, self.up1 = nn.ConvTranspose2d(16, 12, 2, 2), nn.ConvTranspose2d(12, 8, 4, 2, 1)
        self.mid, self.out = conv(24, 12), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x)
        two = self.two(one)
        x = self.mid(torch.cat((self.up2(self.three(two)), two), 1))
        return self.out(torch.cat((self.up1(x), one), 1))


class GroupedTransposed(Vision):
    """A transposed convolution in two groups, and a depthwise one."""

    def __init__(self) -> None:
        super().__init__(8, 12)
        self.grouped = nn.ConvTranspose2d(8, 12, 2, 2, groups=2)
        self.depth = nn.ConvTranspose2d(12, 12, 3, 1, 1, groups=12)
        self.last = conv(12, 12, 1)

    def body(self, x: Tensor) -> Tensor:
        return self.last(self.depth(self.grouped(x).relu()).relu())


class PixelShuffle(nn.Module):
    """Super-resolution: channels become pixels, and pixels channels."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.inner = nn.PixelUnshuffle(2), conv(12, 16)
        self.wide, self.up, self.last = conv(16, 24), nn.PixelShuffle(2), nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.up(self.wide(self.inner(self.down(x)))))


class Focus(Vision):
    """Space to depth by slices (YOLOv5's Focus), and by a view of channels that are prunable."""

    def __init__(self) -> None:
        super().__init__(8, 16)
        self.first, self.second = conv(32, 16), conv(64, 16)

    def body(self, x: Tensor) -> Tensor:
        x = torch.cat((x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]), 1)
        x = self.first(x)
        n, c, h, w = x.shape
        x = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(n, c * 4, h // 2, w // 2)
        return self.second(x)
