"""Least squares after a decision: the layers that read pruned groups make up for what leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from billhook.criteria import Calibration
from billhook.graph.groups import ChannelGroup
from billhook.graph.plan import Keep
from billhook.train.reader_layers import ReaderLayer, supported_readers
from billhook.train.reconstruction import moments, refitted

DAMPING = 1e-3  # as searches repair their candidates, so that an exported trial is what was judged


def refit_(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    keep: Mapping[str, Keep],
    calibration: Calibration,
    *,
    batches: int,
    positions: int,
    seed: int,
) -> list[str]:
    """Refit the layers of `model` that read units which leave, in place; return the names of their weights.

    Each is fitted to the outputs that it gives now to the inputs that it gets now. What reads a group and is
    not a matrix times its inputs stays as it is.

    Args:
        model: In full size, with the weights of the original.
        groups: Those that may be pruned.
        keep: Group id → units that stay.
        calibration: Batches to look at.
        batches: Use at most this many.
        positions: Use at most this many output positions of an image.
        seed: Of the draws.
    """
    gone = {la.tensor: gone_columns(la, keep) for la in supported_readers(model, groups)}
    layers = [la for la in supported_readers(model, groups) if gone[la.tensor].any()]
    if not layers:
        return []
    seen = moments(model, layers, calibration, batches=batches, positions=positions, seed=seed)
    for layer in layers:
        sums, columns = seen[layer.tensor], gone[layer.tensor]
        if not columns.all():  # else the layer leaves with its branch
            second, cross = (t.double() / max(1.0, sums.rows) for t in (sums.second, sums.cross))
            matrix = layer.matrix().double()
            layer.assign_(refitted(matrix, cross, second, columns.to(second.device), DAMPING))
    return [la.tensor for la in layers]


def gone_columns(layer: ReaderLayer, keep: Mapping[str, Keep | Tensor]) -> Tensor:
    """Return which columns of a layer's matrix belong to units that leave: mask [columns]."""
    gone = torch.zeros(layer.matrix().shape[2], dtype=torch.bool)
    for group, columns in layer.units.items():
        if group in keep:
            gone[columns[~torch.as_tensor(keep[group])].flatten()] = True
    return gone
