"""Building blocks of random networks: each takes [N, `before`, H, W] and returns [N, `self.after`, H, W]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = {
    "relu": F.relu,
    "gelu": F.gelu,
    "hardswish": F.hardswish,
    "sigmoid": torch.sigmoid,
    "none": lambda x: x,
}
NORMS = {
    "batch": nn.BatchNorm2d,
    "instance": lambda c: nn.InstanceNorm2d(c, affine=True),
    "pairs": lambda c: nn.GroupNorm(c // 2, c),
    "one group": lambda c: nn.GroupNorm(1, c),
    "none": lambda c: nn.Identity(),
}


class Block(nn.Module):
    """What all blocks share.

    Attributes:
        after: Channels of the output.
        choice: A small number with which a block varies.
    """

    def __init__(self, before: int, width: int, norm: str, activation: str, choice: int) -> None:
        super().__init__()
        self.before, self.after, self.choice = before, before, choice
        self.norm, self.activation = NORMS[norm], ACTIVATIONS[activation]
        self.build(before, width)

    def build(self, before: int, width: int) -> None:
        raise NotImplementedError

    def conv(self, before: int, after: int, kernel: int = 3, groups: int = 1) -> nn.Sequential:
        bias = self.choice % 2 == 0
        layer = nn.Conv2d(before, after, kernel, padding=kernel // 2, groups=groups, bias=bias)
        return nn.Sequential(layer, self.norm(after))


class Plain(Block):
    def build(self, before: int, width: int) -> None:
        self.after = width
        self.layer = self.conv(before, width, (3, 1, 5, 3)[self.choice])

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.layer(x))


class Grouped(Block):
    """Two or four groups, or a group for every two channels."""

    def build(self, before: int, width: int) -> None:
        self.after = width
        groups = (2, 4, before // 2, 2)[self.choice]
        self.after = width if width % groups == 0 else before
        self.layer = self.conv(before, self.after, 3, groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.layer(x))


class Depthwise(Block):
    def build(self, before: int, width: int) -> None:
        self.after = width
        times = 1 + self.choice % 2
        self.depth, self.point = (
            self.conv(before, before * times, 3, before),
            self.conv(before * times, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.point(self.activation(self.depth(x)))


class Residual(Block):
    """With a projection where widths differ."""

    def build(self, before: int, width: int) -> None:
        self.after = width if self.choice % 2 else before
        self.inner, self.outer = self.conv(before, width), self.conv(width, self.after, 1)
        self.project = nn.Conv2d(before, self.after, 1) if self.after != before else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.project(x) + self.outer(self.activation(self.inner(x))))


class Concat(Block):
    """Dense connections, newest first or last."""

    def build(self, before: int, width: int) -> None:
        self.one, self.two = self.conv(before, 4), self.conv(before + 4, width, 1)
        self.after = before + 4 + width

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.one, self.two):
            new = self.activation(layer(x))
            x = torch.cat((x, new) if self.choice % 2 else (new, x), 1)
        return x


class ChunkConcat(Block):
    """YOLO's C2f."""

    def build(self, before: int, width: int) -> None:
        self.first, self.step = self.conv(before, 2 * width, 1), self.conv(width, width)
        self.last, self.after = self.conv(3 * width, width, 1), width

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.activation(self.first(x)).chunk(2, 1)
        c = b + self.step(b) if self.choice % 2 else self.step(b)
        return self.last(torch.cat((a, b, c), 1))


class UnevenSplit(Block):
    def build(self, before: int, width: int) -> None:
        self.sizes = [before // 4, before - before // 4]
        self.left, self.right = self.conv(self.sizes[0], 4), self.conv(self.sizes[1], width, 1)
        self.after = width + 4

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.split(x, self.sizes, 1)
        return torch.cat((self.left(left), self.right(right)), 1)


class AddSlices(Block):
    """Two slices of one tensor meet: halves, every second, or overlapping ones."""

    def build(self, before: int, width: int) -> None:
        half = before // 2
        self.cuts = ((slice(0, half), slice(half, before)), (slice(0, None, 2), slice(1, None, 2)))[
            self.choice % 2
        ]
        self.after = half
        if self.choice == 3:
            self.cuts, self.after = (slice(0, before - 4), slice(4, before)), before - 4

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.cuts[0]] + self.activation(x[:, self.cuts[1]])


class Shuffle(Block):
    def build(self, before: int, width: int) -> None:
        self.groups = 4 if self.choice == 3 else 2

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if self.choice == 0:
            return F.channel_shuffle(x, self.groups)
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class SqueezeExcite(Block):
    def build(self, before: int, width: int) -> None:
        self.squeeze, self.excite = nn.Linear(before, 4), nn.Linear(4, before)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.excite(self.activation(self.squeeze(x.mean((2, 3)))))
        return x * gate.sigmoid()[:, :, None, None]


class Transposed(Block):
    def build(self, before: int, width: int) -> None:
        self.after = width
        groups = 2 if self.choice == 3 else 1
        self.up = nn.ConvTranspose2d(before, width, 2, 2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.activation(self.up(x)), 2)


class PixelShuffle(Block):
    def build(self, before: int, width: int) -> None:
        self.wide, self.after = self.conv(before, 4 * width, 1), width

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pixel_shuffle(self.activation(self.wide(x)), 2), 2)


class Shared(Block):
    """One layer used twice."""

    def build(self, before: int, width: int) -> None:
        self.layer = nn.Conv2d(before, before, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.activation(self.layer(x)))


class Attention(Block):
    """Over pixels: one projection or three, or torch's own module; with a residual or not."""

    def build(self, before: int, width: int) -> None:
        self.num_heads, self.head_dim = 2, before // 2
        self.attention = nn.MultiheadAttention(before, 2, batch_first=True) if self.choice == 2 else None
        if self.attention is None:
            self.qkv, self.out = nn.Linear(before, 3 * before), nn.Linear(before, before)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        if self.attention is not None:
            mixed = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        else:
            parts = self.qkv(tokens).view(n, h * w, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
            q, k, v = parts.unbind(0)
            if self.choice == 0:
                mixed = F.scaled_dot_product_attention(q, k, v)
            else:
                mixed = (q @ k.transpose(-2, -1) * 0.3).softmax(-1) @ v
            mixed = self.out(mixed.transpose(1, 2).flatten(2))
        mixed = mixed.transpose(1, 2).unflatten(2, (h, w))
        return mixed if self.choice == 3 else x + mixed


class ChannelsLast(Block):
    """A gated feed-forward layer on [N, H, W, C], after a layer norm or not."""

    def build(self, before: int, width: int) -> None:
        self.before_it = nn.LayerNorm(before) if self.choice % 2 else nn.Identity()
        self.up, self.down = nn.Linear(before, 2 * width), nn.Linear(width, before)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(self.before_it(x.permute(0, 2, 3, 1)))
        y = (
            F.glu(y)
            if self.choice < 2
            else self.activation(y[..., : y.shape[-1] // 2]) * y[..., y.shape[-1] // 2 :]
        )
        return x + self.down(y).permute(0, 3, 1, 2)


BLOCKS: dict[str, type[Block]] = {
    b.__name__: b
    for b in (
        Plain, Grouped, Depthwise, Residual, Concat, ChunkConcat, UnevenSplit, AddSlices, Shuffle,
        SqueezeExcite, Transposed, PixelShuffle, Shared, Attention, ChannelsLast,
    )
}  # fmt: skip
