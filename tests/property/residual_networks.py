"""Random residual networks: blocks of every style in one to three stages."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

ACTIVATIONS = {"relu": F.relu, "relu6": F.relu6, "silu": F.silu}


@dataclass(frozen=True)
class Style:
    """One block.

    Attributes:
        kind: "basic", "bottleneck" or "inverted" (a depthwise convolution between two 1×1 ones).
        width: Channels inside.
        groups: Of the 3×3 convolution of a bottleneck.
        before: Norm and activation come before convolutions, and the sum is the last step.
        bias: Whether convolutions have one beside their norm.
    """

    kind: str
    width: int
    groups: int
    before: bool
    bias: bool


@dataclass(frozen=True)
class Residual:
    """A network as data, short enough to read in a failure.

    Attributes:
        stages: Blocks per stage; each stage but the first begins with a stride of two.
        widths: Channels of each stage, never fewer than before.
        shortcut: "A" (strides and zeros) or "B" (1×1 convolution), where shapes differ.
        activation: One for the whole network.
        seed: Of weights, plan and forms.
    """

    stages: tuple[tuple[Style, ...], ...]
    widths: tuple[int, ...]
    shortcut: str
    activation: str
    seed: int


STYLES = st.builds(
    Style,
    kind=st.sampled_from(["basic", "bottleneck", "inverted"]),
    width=st.sampled_from([4, 6, 8]),
    groups=st.sampled_from([1, 2]),
    before=st.booleans(),
    bias=st.booleans(),
)
RESIDUALS = st.builds(
    Residual,
    stages=st.lists(st.lists(STYLES, min_size=1, max_size=2).map(tuple), min_size=1, max_size=3).map(tuple),
    widths=st.lists(st.sampled_from([4, 6, 10]), min_size=3, max_size=3).map(lambda w: tuple(sorted(w))),
    shortcut=st.sampled_from(["A", "B"]),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    seed=st.integers(0, 1000),
)


class Block(nn.Module):
    """A block of one style."""

    def __init__(self, style: Style, before: int, after: int, stride: int, network: Residual) -> None:
        super().__init__()
        self.style, self.stride, self.added = style, stride, after - before
        self.act = ACTIVATIONS[network.activation]
        width, groups = style.width, style.groups
        kernels = {
            "basic": [(before, width, 3, 1), (width, after, 3, 1)],
            "bottleneck": [(before, width, 1, 1), (width, width, 3, groups), (width, after, 1, 1)],
            "inverted": [(before, width, 1, 1), (width, width, 3, width), (width, after, 1, 1)],
        }[style.kind]
        middle = 0 if style.kind == "basic" else 1
        self.convolutions = nn.ModuleList(
            nn.Conv2d(i, o, k, stride if n == middle else 1, k // 2, groups=g, bias=style.bias)
            for n, (i, o, k, g) in enumerate(kernels)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(i if style.before else o) for i, o, _, _ in kernels)
        self.project = None
        if network.shortcut == "B" and (stride > 1 or self.added):
            self.project = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def shortcut(self, x: Tensor) -> Tensor:
        if self.project is not None:
            return self.project(x)
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2)) if self.added else x

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for n, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            if self.style.before:
                y = convolution(self.act(norm(y)))
            else:
                y = norm(convolution(y))
                y = self.act(y) if n < len(self.norms) - 1 else y
        y = y + self.shortcut(x)
        return y if self.style.before else self.act(y)


class Network(nn.Module):
    """The network that a description describes."""

    def __init__(self, description: Residual) -> None:
        super().__init__()
        width = description.widths[0]
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.stages = nn.ModuleList()
        for number, styles in enumerate(description.stages):
            blocks = nn.ModuleList()
            for position, style in enumerate(styles):
                after = description.widths[number]
                stride = 2 if number and not position else 1
                blocks.append(Block(style, width, after, stride, description))
                width = after
            self.stages.append(blocks)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return self.head(x.mean((2, 3)))
