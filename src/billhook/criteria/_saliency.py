"""First-order saliency from calibration data: Σ weight · gradient along the axes that groups own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from billhook.criteria._base import Axis, Calibration
from billhook.criteria._members import others
from billhook.criteria._passes import loss_of, outputs_of, pairs, recording, untouched


def saliency(
    model: nn.Module, axes: Sequence[Axis], calibration: Calibration, *, batches: int, seed: int = 0
) -> dict[Axis, Tensor]:
    """Return Σ weight · ∂loss/∂weight for every index of the given axes and every batch.

    To first order, the loss changes by minus such a sum when the weights it runs over become zero. Sums
    along an axis are kept instead of gradients, so memory is that of one backward pass plus a few numbers
    per channel, and any grouping of channels can be read from them afterwards.

    The model runs in eval mode, one forward and backward pass per batch. Weights, gradients, buffers,
    train/eval modes and the random state are left as they were.

    Args:
        model: On any device; batches are moved there.
        axes: (tensor name, axis) pairs of parameters.
        calibration: Batches and loss.
        batches: Use at most this many.
        seed: Of the random state during the passes, so that a shuffling loader gives the same batches again.
    Returns:
        {(tensor, axis): [batches, n] float32}.
    Raises:
        InputError: if there are no batches, a batch is not a pair, or the loss is not a finite scalar.
    """
    wanted: dict[str, list[int]] = {}
    for tensor, axis in axes:
        wanted.setdefault(tensor, []).append(axis)
    rows: dict[Axis, list[Tensor]] = {a: [] for a in axes}
    with untouched(model, seed):
        for number, inputs, targets in pairs(model, calibration, batches):
            with recording(model, list(wanted)) as weights:
                value = loss_of(calibration.loss, outputs_of(model, inputs), targets, number)
                gradients = torch.autograd.grad(value, weights, allow_unused=True, materialize_grads=True)
            for name, weight, gradient in zip(wanted, weights, gradients, strict=True):
                product = (weight.detach() * gradient).float()
                for axis in wanted[name]:
                    rest = others(product, axis)  # summed over none of them, torch sums over all
                    rows[name, axis].append(product.sum(rest) if rest else product)
    return {a: torch.stack(r) for a, r in rows.items()}
