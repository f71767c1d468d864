"""Least squares after a decision: the layers that read pruned groups make up for what leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from billhook.criteria import Calibration
from billhook.graph.groups import ChannelGroup
from billhook.graph.plan import Keep
from billhook.train.reader_layers import supported_readers
from billhook.train.reconstruction import DAMPING, moments, refitted


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
    readers = supported_readers(model, groups)
    gone = {la.tensor: la.gone(keep) for la in readers}
    layers = [la for la in readers if gone[la.tensor].any()]
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
