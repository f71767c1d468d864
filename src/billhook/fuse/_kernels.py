"""Kernels that copy, place and average: what convolutions get in the place of shortcuts and pooling.

As in `_algebra`, all results are in float64 on the CPU; who stores them casts them back.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from billhook.fuse._algebra import exact


def centred(matrix: Tensor, kernel_size: Sequence[int]) -> Tensor:
    """Return the kernel [out, in, *kernel_size] that applies `matrix` [out, in] to its centre pixel."""
    kernel = torch.zeros(*matrix.shape, *kernel_size, dtype=torch.float64)
    centre: list[Any] = [size // 2 for size in kernel_size]
    kernel[(slice(None), slice(None), *centre)] = exact(matrix)
    return kernel


def dirac(channels: int, kernel_size: Sequence[int], *, depthwise: bool = False) -> Tensor:
    """Return the kernel that copies its input: [channels, channels or 1, *kernel_size], float64."""
    return centred(torch.ones(channels, 1) if depthwise else torch.eye(channels), kernel_size)


def placing(channels: int, ahead: int, behind: int) -> Tensor:
    """Return the 0/1 matrix that puts zero channels before and behind `channels` ("option A")."""
    return pad(torch.eye(channels, dtype=torch.float64), (0, 0, ahead, behind))


def block_diagonal(first: Tensor, second: Tensor) -> Tensor:
    """Return the kernel of two convolutions side by side: both [out, in, *size], of one size."""
    upper = torch.cat((first, first.new_zeros(len(first), second.shape[1], *first.shape[2:])), 1)
    lower = torch.cat((second.new_zeros(len(second), first.shape[1], *first.shape[2:]), second), 1)
    return torch.cat((upper, lower))


def pooled(weight: Tensor, size: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Return the kernel of a convolution whose results are averaged over windows of `size`.

    It is the full correlation with a box of height 1 ÷ prod(size): copies of the kernel, moved by the
    convolution's stride from pixel to pixel of the window, are added up.

    Args:
        weight: Kernel of the convolution [out, in, *k].
        size: The window.
        stride: Of the convolution; that of the result is this times the stride of the windows.
    Returns:
        Kernel [out, in, *(k + stride · (size − 1))], float64.
    """
    weight = exact(weight)
    kernel = [k + s * (n - 1) for k, s, n in zip(weight.shape[2:], stride, size, strict=True)]
    total = weight.new_zeros([*weight.shape[:2], *kernel])
    for offset in torch.cartesian_prod(*(torch.arange(n) for n in size)).reshape(-1, len(size)).tolist():
        place: list[Any] = [
            slice(s * o, s * o + k) for s, o, k in zip(stride, offset, weight.shape[2:], strict=True)
        ]
        total[(slice(None), slice(None), *place)] += weight
    return total / prod(size)


def averaging(weight: Tensor, size: Sequence[int], divisor: int) -> Tensor:
    """Return the kernel of sums over windows of `size`, divided, in front of a 1×1 kernel [out, in, 1, …]."""
    return (exact(weight) / divisor).expand(*weight.shape[:2], *size).clone()
