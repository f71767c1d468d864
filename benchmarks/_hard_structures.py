"""Small networks that are hard because of how they are written; see hard_graphs.py."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._hard_convolutions import CLASSES, Vision, conv


class FlattenLinear(nn.Module):
    """Every channel becomes sixteen features of a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(3, 8), nn.AdaptiveAvgPool2d(4))
        self.hidden, self.head = nn.Linear(128, 20), nn.Linear(20, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(torch.flatten(self.features(x), 1)).relu())


class ConcatFlatten(nn.Module):
    """Two flattened maps side by side, with pixels first in one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 6, stride=2), conv(3, 5, stride=2)
        self.head = nn.Linear(6 * 16 + 5 * 16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        a, b = F.max_pool2d(self.a(x), 2), F.max_pool2d(self.b(x), 2)
        return self.head(torch.cat((a.flatten(1), b.permute(0, 2, 3, 1).flatten(1)), 1))


class LiteralView(Vision):
    """Sizes written as numbers into views."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.inner, self.outer = conv(8, 12), conv(12, 8, 1)

    def body(self, x: Tensor) -> Tensor:
        x = self.inner(x).view(-1, 12, 256).relu()
        return self.outer(x.reshape(-1, 12, 16, 16))


class SharedLayer(Vision):
    """One layer used three times in a row."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.again = nn.Conv2d(8, 8, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.again(x).relu()
        return x


class SharedBackbone(nn.Module):
    """A siamese network: the same layers on two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            conv(3, 8), conv(8, 12, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.compare, self.head = nn.Linear(24, 10), nn.Linear(10, CLASSES)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = self.backbone(a), self.backbone(b)
        return self.head(self.compare(torch.cat(((a - b).abs(), a * b), 1)).relu())


class TiedWeights(Vision):
    """Two layers share one weight; batch norms are their own."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.two.weight = self.one.weight
        self.norm1, self.norm2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def body(self, x: Tensor) -> Tensor:
        return self.norm2(self.two(self.norm1(self.one(x)).relu())).relu()


class Turns(Vision):
    """squeeze, unsqueeze, permute and movedim in a chain around channels-last layers."""

    def __init__(self) -> None:
        super().__init__(8, 12)
        self.inner, self.outer = nn.Linear(8, 20), nn.Linear(20, 12)

    def body(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(1).permute(0, 1, 3, 4, 2).squeeze(1)
        x = self.outer(self.inner(x).relu())
        return x.movedim(-1, 1).transpose(2, 3).contiguous()


class Stacked(Vision):
    """Branches are stacked in a new dimension, then weighted and summed (selective kernels)."""

    def __init__(self) -> None:
        super().__init__(8, 12)
        self.a, self.b = conv(8, 12), conv(8, 12, 1)
        self.mid, self.choice = nn.Linear(12, 6), nn.Linear(6, 24)

    def body(self, x: Tensor) -> Tensor:
        both = torch.stack((self.a(x), self.b(x)), 1)
        weights = self.choice(self.mid(both.sum(1).mean((2, 3))).relu()).unflatten(1, (2, 12)).softmax(1)
        return (both * weights[:, :, :, None, None]).sum(1)


class Masked(Vision):
    """torch.where and masked_fill, with a mask from another branch."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def body(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        return torch.where(a > b, a, 0.5 * b).masked_fill(a < -0.5, 0.25)


class ChannelMean(Vision):
    """A mean over channels, subtracted again: these channels are held."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.wide, self.narrow = conv(8, 16), conv(16, 8)

    def body(self, x: Tensor) -> Tensor:
        x = self.narrow(self.wide(x))
        return x - x.mean(1, keepdim=True)


class ChannelSum(Vision):
    """A sum over channels consumes them without any weight."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.gate = nn.Conv2d(8, 12, 1, bias=False)

    def body(self, x: Tensor) -> Tensor:
        return x * self.gate(x).relu().sum(1, keepdim=True).sigmoid()


class Loop(Vision):
    """Lists and dicts of modules, called in a loop with a growing list of results."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.steps = nn.ModuleList([conv(8, 8) for _ in range(3)])
        self.ends = nn.ModuleDict({"a": conv(8, 8, 1), "b": conv(8, 8, 1)})

    def body(self, x: Tensor) -> Tensor:
        seen = [x]
        for step in self.steps:
            seen.append(step(sum(seen)))
        return self.ends["a"](seen[-1]) + self.ends["b"](seen[1])


class TwoOutputs(nn.Module):
    """A dict with a tuple in it: every output is protected."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.next = conv(3, 8), conv(8, 12)
        self.head, self.mask = nn.Linear(12, CLASSES), nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> dict[str, Any]:
        early = self.stem(x)
        late = self.next(early)
        return {"classes": self.head(late.mean((2, 3))), "maps": (self.mask(early), late)}


class NamedInputs(nn.Module):
    """Keyword arguments, one of them optional."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.extra = conv(3, 8), nn.Linear(4, 8)
        self.inner, self.head = nn.Linear(8, 12), nn.Linear(12, CLASSES)

    def forward(self, image: Tensor, extra: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.image(image).mean((2, 3)) + self.extra(extra)
        return self.head(self.inner(x).relu())


class WeightNormed(Vision):
    """A reparametrised weight: its norm runs over the axes that are consumed."""

    def __init__(self) -> None:
        super().__init__(8, 12)
        self.inner = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 12, 3, padding=1))
        self.last = conv(12, 12, 1)

    def body(self, x: Tensor) -> Tensor:
        return self.last(self.inner(x).relu())


class WeightStandardized(Vision):
    """The weight is standardised in forward: every filter by its own mean and deviation."""

    def __init__(self) -> None:
        super().__init__(8, 12)
        self.inner, self.last = nn.Conv2d(8, 12, 3, padding=1), conv(12, 12, 1)

    def body(self, x: Tensor) -> Tensor:
        w = self.inner.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return self.last(F.conv2d(x, w, self.inner.bias, padding=1).relu())


class Constants(Vision):
    """Constants made in forward: a table added per channel, a blur as a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__(8, 12)
        self.register_buffer("offset", torch.linspace(-1, 1, 8).reshape(8, 1, 1))
        self.inner = nn.Conv2d(8, 12, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        x = x + self.offset
        blur = torch.full((8, 1, 3, 3), 1 / 9, device=x.device)
        return self.inner(F.conv2d(x, blur, padding=1, groups=8)).relu()


class SlopesAndShifts(Vision):
    """PReLU, roll over pixels, interpolation."""

    def __init__(self) -> None:
        super().__init__(8, 12)
        self.slopes, self.inner, self.one = nn.PReLU(8), nn.Conv2d(8, 12, 3, padding=1), nn.PReLU()

    def body(self, x: Tensor) -> Tensor:
        x = self.slopes(torch.roll(x, (1, 2), (2, 3)) - 0.5)
        return self.one(self.inner(F.interpolate(x, scale_factor=2, mode="bilinear")))


class GroupNormed(Vision):
    """Group norm with groups of two: pairs leave; instance norm: single channels do."""

    def __init__(self) -> None:
        super().__init__(16, 12)
        self.pairs, self.inner = nn.GroupNorm(8, 16), nn.Conv2d(16, 12, 3, padding=1)
        self.single = nn.InstanceNorm2d(12, affine=True)

    def body(self, x: Tensor) -> Tensor:
        return self.single(self.inner(self.pairs(x).relu())).relu()


class Volume(nn.Module):
    """3d convolutions, then 1d ones over time."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv3d(2, 8, 3, padding=1), nn.BatchNorm3d(8)
        self.two, self.time = nn.Conv3d(8, 12, (1, 3, 3)), nn.Conv1d(12, 10, 3)
        self.head = nn.Linear(10, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.norm(self.one(x)).relu()).relu().mean((3, 4))
        return self.head(self.time(x).relu().amax(2))


class TwoNames(Vision):
    """One block under two names."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.block = nn.Sequential(conv(8, 12), nn.Conv2d(12, 8, 1))
        self.blocks = nn.ModuleList([self.block, self.block])

    def body(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x
