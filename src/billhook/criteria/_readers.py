"""Which layers read a tensor of weights, and at which places of their input they read a unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from billhook.graph.groups import IndexMap, Member

_CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
_TRANSPOSED = {nn.ConvTranspose1d: 1, nn.ConvTranspose2d: 2, nn.ConvTranspose3d: 3}


@dataclass(frozen=True)
class Reader:
    """A convolution or linear layer, seen from its input.

    Attributes:
        layer: Its name.
        axis: Axis of its weight that runs over the input's channels.
        spatial: Dimensions of its input behind the channels; 0 for linear layers, whose channels come last.
        groups: Of a convolution; each sees a part of the channels through the same axis of the weight.
    """

    layer: str
    axis: int
    spatial: int = 0
    groups: int = 1

    def positions(self, member: Member, length: int) -> IndexMap:
        """Return each unit's channels of the input: [size, width].

        Args:
            member: Of the layer's weight, on `axis`.
            length: Of that axis.
        """
        if self.groups == 1 or self.axis == 0:
            return member.index
        offsets = np.arange(self.groups) * length
        return (member.index[:, :, None] + offsets).reshape(len(member.index), -1)

    def channels_second(self, activation: Tensor) -> Tensor:
        """Return an input of the layer as [rows, channels, *positions], with at least one position axis."""
        if self.spatial:
            batched = activation if activation.dim() > self.spatial + 1 else activation[None]
        else:
            batched = activation.movedim(-1, 1) if activation.dim() > 1 else activation[None]
        return batched if batched.dim() > 2 else batched[..., None]


def readers(model: nn.Module) -> dict[str, Reader]:
    """Return who reads with each weight, by its name; of layers that share one, the first."""
    names = {id(p): name for name, p in model.named_parameters()}
    # PyTorch's own attention is one function, inside which nobody sees what its output projection reads.
    passed_by = {id(m.out_proj) for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    found: dict[str, Reader] = {}
    for name, module in model.named_modules():
        reader = None if id(module) in passed_by else _reader(name, module)
        if reader and (weight := names.get(id(module.weight))):
            found.setdefault(weight, reader)
    return found


def _reader(name: str, module: nn.Module) -> Reader | None:
    if isinstance(module, nn.Linear):
        return Reader(name, axis=1)
    for kinds, axis in ((_CONVOLUTIONS, 1), (_TRANSPOSED, 0)):
        for kind, spatial in kinds.items():
            if isinstance(module, kind):
                return Reader(name, axis, spatial, int(module.groups))
    return None
