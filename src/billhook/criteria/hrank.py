"""HRank: feature maps of low rank carry little information."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from billhook.criteria._activations import OfActivations
from billhook.errors import InputError
from billhook.options import Number, option
from billhook.registry import Info

INFO = Info(
    "mean matrix rank of the feature maps",
    "Lin et al., HRank, CVPR 2020, arXiv:2002.10179",
    needs_data=True,
    notes="says little on maps of a few pixels; without height and width a rank is only 0 or 1",
)


def ranks(maps: Tensor) -> Tensor:
    """Return the matrix rank of every map, [rows, channels] of [rows, channels, *positions], float32.

    Maps of height and width are matrices. Of volumes, all dimensions but the last make the rows. What has one
    dimension (tokens, time) or none is a single column, whose rank is 0 if it is zero and 1 otherwise.
    Takes one singular value decomposition per map.
    """
    if maps.dim() == 3:
        return maps.ne(0).any(2).float()
    if not torch.isfinite(maps).all():
        raise InputError("activations hold NaN or infinite values; look at the weights and at the data")
    found: Tensor = torch.linalg.matrix_rank(maps.flatten(2, -2))
    return found.float()


@dataclass(frozen=True)
class Hrank(OfActivations):
    """Mean rank of a unit's feature map over samples; see `OfActivations` for where the map is taken.

    References:
        Lin et al., "HRank: Filter Pruning using High-Rank Feature Map", CVPR 2020.
        arXiv:2002.10179.
    Differs from the source:
        Maps are taken where they are read, for instance behind pooling. The source scores a small number of
        images (5 batches of 128), which is the default number of batches here; their size is the data's.
        Ranks cannot exceed the shorter side of a map, so small maps score alike and ties fall to the index.
    """

    name: ClassVar[str] = "hrank"
    batches: int = option(5, Number(1, integer=True), "use at most this many batches")

    def measure(self, values: Tensor) -> Tensor:
        """Return the rank of every map: [rows, channels]."""
        return ranks(values)


ENTRY = Hrank
