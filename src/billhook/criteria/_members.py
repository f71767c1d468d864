"""From the axes of tensors to the units of a group: which members count, and sums over them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from billhook.graph.groups import ChannelGroup, Member

WHICH = ("all", "out")


def weights(group: ChannelGroup, tensors: Mapping[str, Tensor], which: str = "all") -> tuple[Member, ...]:
    """Return the members that are weights: floating point, at least two axes.

    Biases and norm parameters are left out, because their size says nothing about how much of the input
    passes. A group that owns nothing else (layer scale between additions) is judged by those.

    Args:
        group: Whose members.
        tensors: Parameters and buffers by name.
        which: "all" coupled members, or only the ones that produce the channels ("out").
    """
    members = [m for m in group.members if which == "all" or m.role == which]
    floats = [m for m in members if tensors[m.tensor].is_floating_point()]
    matrices = [m for m in floats if tensors[m.tensor].dim() > 1]
    return tuple(matrices or floats)


def others(tensor: Tensor, axis: int) -> list[int]:
    """Return all axes of `tensor` but one."""
    return [d for d in range(tensor.dim()) if d != axis]


def per_unit(values: Tensor, member: Member) -> Tensor:
    """Return the sum of `values` over the indices that each unit owns.

    Args:
        values: One value for each index on the member's axis; shape [..., n].
        member: Its index map is [size, width].
    Returns:
        Tensor [..., size].
    """
    index = torch.tensor(member.index, device=values.device)
    taken = values.index_select(-1, index.flatten())
    return taken.view(*values.shape[:-1], *index.shape).sum(-1)


def unit_rows(tensor: Tensor, member: Member) -> Tensor:
    """Return each unit's slice of `tensor` as one row: [size, values per unit]."""
    index = torch.tensor(member.index, device=tensor.device)
    taken = tensor.index_select(member.axis, index.flatten())
    return taken.movedim(member.axis, 0).reshape(len(index), -1)
