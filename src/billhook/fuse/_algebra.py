"""Linear layers as numbers: what the folding passes compute.

A convolution is `weight` [outputs, inputs ÷ groups, *kernel], `bias` [outputs] or None, and a `Window`. A
linear layer is a convolution without pixels; the identity and a batch norm are convolutions of one pixel with
a group for every channel. All results are in float64 on the CPU; who stores them casts them back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd, prod

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Window:
    """What a convolution reads for one output.

    Attributes:
        outputs: Channels that it makes.
        inputs: Channels that it reads.
        kernel: Length per dimension of the image; none for a linear layer.
        stride: As in `nn.Conv2d`, per dimension.
        padding: Zeros on either side, per dimension.
        dilation: As in `nn.Conv2d`, per dimension.
        groups: As in `nn.Conv2d`.
    """

    outputs: int
    inputs: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def macs(self) -> int:
        """Multiplications for all channels of one output pixel."""
        return self.outputs * self.inputs // self.groups * prod(self.kernel)

    @property
    def reach(self) -> tuple[tuple[int, ...], ...]:
        """Where it reads in each dimension, counted from stride × position of the output."""
        triples = zip(self.kernel, self.padding, self.dilation, strict=True)
        return tuple(tuple(range(-p, k * d - p, d)) for k, p, d in triples)

    def image(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Return the size of the output image for an input image."""
        each = zip(sizes, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in each)


def pixel(channels: int, dimensions: int) -> Window:
    """Return the window of the identity, or of a batch norm, on an image of so many dimensions."""
    return Window(
        channels,
        channels,
        (1,) * dimensions,
        (1,) * dimensions,
        (0,) * dimensions,
        (1,) * dimensions,
        channels,
    )


def joined(a: Window, b: Window) -> Window:
    """Return the smallest window that reads what both read, pixel by pixel.

    Two convolutions of equal stride read the input at stride × position + reach, and nothing but zeros
    outside of it. So both are special cases of one whose reach holds both reaches, with zeros as the
    other weights, wherever it makes an output of the same size.
    """
    kernel, padding, dilation = [], [], []
    for first, second in zip(a.reach, b.reach, strict=True):
        reach = sorted({*first, *second})
        step = gcd(*(at - reach[0] for at in reach)) or 1
        kernel.append((reach[-1] - reach[0]) // step + 1)
        padding.append(-reach[0])
        dilation.append(step)
    return replace(
        a,
        kernel=tuple(kernel),
        padding=tuple(padding),
        dilation=tuple(dilation),
        groups=gcd(a.groups, b.groups),
    )


def embedded(weight: Tensor, own: Window, into: Window) -> Tensor:
    """Return a weight of the window `own` as one of the larger window `into`, with zeros around it."""
    grouped = _with_fewer_groups(weight, own.groups, into.groups)
    result = grouped.new_zeros((into.outputs, into.inputs // into.groups, *into.kernel))
    places = [
        torch.tensor([(at + p) // d for at in reach], dtype=torch.int64)
        for reach, p, d in zip(own.reach, into.padding, into.dilation, strict=True)
    ]
    channels = [torch.arange(n) for n in grouped.shape[:2]]
    result[torch.meshgrid(*channels, *places, indexing="ij")] = grouped
    return result


def _with_fewer_groups(weight: Tensor, groups: int, fewer: int) -> Tensor:
    """Return the same weight for `fewer` groups, which must divide `groups`: a block-diagonal matrix."""
    outputs, width, *kernel = weight.shape
    each = groups // fewer
    blocks = weight.reshape(fewer, each, outputs // groups, width, *kernel)
    result = weight.new_zeros((fewer, each, outputs // groups, each, width, *kernel))
    for i in range(each):
        result[:, i, :, i] = blocks[:, i]
    return result.reshape(outputs, each * width, *kernel)


def exact(tensor: Tensor) -> Tensor:
    """Return a tensor as float64 on the CPU (not every device has float64)."""
    return tensor.detach().to("cpu", torch.float64)


def scale_and_shift(norm: nn.modules.batchnorm._NormBase) -> tuple[Tensor, Tensor]:
    """Return s and t with norm(x) = s · x + t in eval mode: s = γ ÷ √(σ² + ε), t = β − s · μ."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (exact(norm.running_var) + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * exact(norm.weight)
    shift = -scale * exact(norm.running_mean)
    return scale, shift if norm.bias is None else shift + exact(norm.bias)


def folded_behind(
    weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of s · layer(x) + t; a layer without bias gets one only if t is not zero.

    W'ₒ = sₒWₒ, b'ₒ = sₒbₒ + tₒ. Also for a batch norm, whose weight and bias are [channels].
    """
    scale, shift = (v.expand(len(weight)) for v in (scale, shift))
    scaled = exact(weight) * scale.reshape(-1, *(1,) * (weight.dim() - 1))
    if bias is None:
        return scaled, shift.clone() if bool(shift.any()) else None
    return scaled, exact(bias) * scale + shift


def folded_before(
    weight: Tensor, bias: Tensor | None, groups: int, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of layer(s · x + t), where no window reads beyond the image unless t is zero.

    W'[:, i] = W[:, i] · sᵢ, b' = b + Σᵢ tᵢ · Σₖ W[:, i, k]; with groups, i counts within the output's group.
    """
    own, width = exact(weight), weight.shape[1]

    def per_output(values: Tensor) -> Tensor:
        rows = values.expand(groups * width).reshape(groups, width).repeat_interleave(len(own) // groups, 0)
        return rows.reshape(len(own), width, *(1,) * (own.dim() - 2))

    scaled = own * per_output(scale)
    if not bool(shift.any()):
        return scaled, None if bias is None else exact(bias)
    offset = (own * per_output(shift)).flatten(1).sum(1)
    return scaled, offset if bias is None else exact(bias) + offset


def total(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Return the sum of two biases, of which either may be missing."""
    if a is None or b is None:
        return a if b is None else b
    return a + b


def side_by_side(a: Tensor | None, b: Tensor | None, counts: tuple[int, int]) -> Tensor | None:
    """Return two biases one behind the other; a missing one is zeros, and two missing ones are none."""
    if a is None and b is None:
        return None
    parts = [
        torch.zeros(n, dtype=torch.float64) if v is None else exact(v)
        for v, n in zip((a, b), counts, strict=True)
    ]
    return torch.cat(parts)
