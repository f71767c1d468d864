"""The plain form of a pivoted layer: gather, grouped layer, gather."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Ints = npt.NDArray[np.int64]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class ChannelGather(nn.Module):
    """Puts channels into another order; multiplies nothing, but copies what it passes on.

    Args:
        index: For every channel of the result, which channel of the input it is.
        dim: Of the channels, from the end: -1 for the features of a linear layer, -3 for images.
    """

    index: Tensor

    def __init__(self, index: Ints, dim: int) -> None:
        super().__init__()
        self.register_buffer("index", torch.from_numpy(np.asarray(index, dtype=np.int64)))
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with its channels in the new order."""
        return x.index_select(self.dim, self.index)

    def extra_repr(self) -> str:
        """Return how many channels there are, and where."""
        return f"{len(self.index)} channels, dim={self.dim}"


class GroupedLinear(nn.Module):
    """A linear layer whose inputs and outputs are in `groups` groups, as one batched matrix product.

    Args:
        weight: Of all groups, one above the other; shape [outputs, inputs / groups].
        bias: Shape [outputs], or None.
        groups: How many; it divides inputs and outputs.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, groups: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.groups = groups
        self.in_features, self.out_features = weight.shape[1] * groups, weight.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., outputs] for x [..., inputs]."""
        width, height = self.in_features // self.groups, self.out_features // self.groups
        parts = x.reshape(-1, self.groups, width).transpose(0, 1)
        product = parts @ self.weight.reshape(self.groups, height, width).transpose(1, 2)
        result = product.transpose(0, 1).reshape(*x.shape[:-1], self.out_features)
        return result if self.bias is None else result + self.bias

    def extra_repr(self) -> str:
        """Return the sizes, as `nn.Linear` has them."""
        return f"in_features={self.in_features}, out_features={self.out_features}, groups={self.groups}"


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Which rows and columns of a weight make a block, in the order of the grouped layer.

    Attributes:
        rows: Outputs of every block; shape [blocks, outputs / blocks].
        columns: Inputs of every block; shape [blocks, inputs / blocks].
        before: Whether the inputs must be put into this order; they come in it if not.
        after: Whether the outputs must be put back; what follows takes them as they are if not.
    """

    rows: Ints
    columns: Ints
    before: bool
    after: bool


def grouped(module: nn.Module, arrangement: Arrangement) -> nn.Module:
    """Return what computes the same as `module`, a convolution or linear layer that is block-diagonal.

    A convolution is changed in place, because its other attributes stay.
    """
    weight: Any = module.weight
    bias: Any = module.bias
    rows, columns = arrangement.rows, arrangement.columns
    small = blocks_of(weight.detach(), rows, columns, transposed=getattr(module, "transposed", False))
    order = torch.from_numpy(rows.reshape(-1)).to(weight.device)
    shift = None if bias is None else bias.detach()[order]
    layer: Any
    if isinstance(module, nn.Linear):
        layer, dim = GroupedLinear(small, shift, len(rows)).train(module.training), -1
    else:
        layer, dim = module, 1 - weight.dim()
        layer.groups, layer.weight = len(rows), nn.Parameter(small)
        layer.bias = None if shift is None else nn.Parameter(shift)
    layer.weight.requires_grad_(weight.requires_grad)
    if bias is not None:
        layer.bias.requires_grad_(bias.requires_grad)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if arrangement.before:
        parts["before"] = ChannelGather(columns.reshape(-1), dim)
    parts["layer"] = layer
    if arrangement.after:
        parts["after"] = ChannelGather(np.argsort(rows.reshape(-1)), dim)
    if len(parts) == 1:
        return parts["layer"]
    return nn.Sequential(parts).to(weight.device).train(module.training)


def blocks_of(weight: Tensor, rows: Ints, columns: Ints, *, transposed: bool = False) -> Tensor:
    """Return the blocks of a weight as the weight of a grouped layer: [outputs, inputs / blocks, …].

    Args:
        weight: Shape [outputs, inputs, …], or [inputs, outputs, …] if `transposed`; so is the result.
        rows: Outputs of every block; shape [blocks, outputs / blocks].
        columns: Inputs of every block; shape [blocks, inputs / blocks].
        transposed: The weight is that of a transposed convolution.
    """
    first, second = (columns, rows) if transposed else (rows, columns)
    parts = [
        weight[torch.from_numpy(a).to(weight.device)][:, torch.from_numpy(b).to(weight.device)]
        for a, b in zip(first, second, strict=True)
    ]
    return torch.cat(parts)
