"""Symbolic copies: a shortcut as lists of channel numbers, which can be pruned one by one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from billhook.graph.layers import OWN_LAYERS


def _copy_channels(
    x: Tensor, index: Tensor, gate: Tensor | None = None, magnitude: Tensor | None = None
) -> Tensor:
    if index.shape[0] == 0:
        return x[:, :0]
    if gate is not None:
        x = x * gate.view(-1, *[1] * (x.dim() - 2))
    # One channel of zeros behind the others, for the number -1.
    zeros = x.new_zeros([x.shape[0], 1, *x.shape[2:]])
    return torch.cat((x, zeros), 1).index_select(1, torch.where(index < 0, x.shape[1], index))


# An operator of its own, so that capture can tell copies from any look-up by number. Exporters and autograd
# get to see what it is composed of.
torch.library.define(
    "billhook::copy_channels", "(Tensor x, Tensor index, Tensor? gate=None, Tensor? magnitude=None) -> Tensor"
)
torch.library.impl("billhook::copy_channels", "CompositeImplicitAutograd", _copy_channels)


class ChannelCopy(nn.Module):
    """Channel j of the output is channel index[j] of the input, or zero where index[j] is -1.

    This is a 1×1 convolution whose filters are rows of the identity, kept as a list of numbers: it counts as
    no multiplication and is lowered before a network is exported. Pruning cuts the list where an output
    channel leaves; where an input channel leaves, its number becomes -1.

    Args:
        index: Channel numbers [n], -1 for none.
        gate: What each channel of the input is multiplied with [channels]: ones, unless a method that trains
            silences channels where they are read.
        magnitude: What a copy is judged by [n]: how large its channel is on average. The norm of a row of
            the identity, which is always one, would say nothing.
    """

    index: Tensor
    gate: Tensor
    magnitude: Tensor | None

    def __init__(self, index: Tensor, gate: Tensor, magnitude: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("index", index.to(torch.int64))
        self.register_buffer("gate", gate)
        self.register_buffer("magnitude", magnitude)

    def forward(self, x: Tensor) -> Tensor:
        """Return the copies [batch, n, ...] of channels of `x` [batch, channels, ...]."""
        copied: Tensor = torch.ops.billhook.copy_channels(x, self.index, self.gate, self.magnitude)
        return copied

    def extra_repr(self) -> str:
        """Return how many channels are copied."""
        return f"{int((self.index >= 0).sum())} of {len(self.index)} channels"


def _layer(tensors: Mapping[str, Tensor | None]) -> ChannelCopy:
    index, gate = tensors["index"], tensors["gate"]
    assert index is not None
    assert gate is not None
    return ChannelCopy(index, gate, tensors["magnitude"])


OWN_LAYERS["billhook::copy_channels"] = (("index", "gate", "magnitude"), _layer)
