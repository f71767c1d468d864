"""Batch-norm statistics after surgery: measured anew, without training."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from billhook.errors import InputError
from billhook.train.batches import as_batches, unpack
from billhook.train.inference import forward_only


def recalibrate_batchnorm(
    model: nn.Module,
    batches: Any,
    steps: int,
    *,
    precision: str = "32-true",
    device: torch.device | str | None = None,
) -> int:
    """Reset and recompute the running statistics of all batch-norm layers, in place; return the batches read.

    Mean and variance become plain averages over the batches. Only batch-norm layers are in train mode
    meanwhile: dropout stays off, weights and all other buffers stay as they are. A layer that no batch
    reaches keeps its statistics, and so do all of them if a pass fails. One forward pass per batch.

    Args:
        model: Network in any mode.
        batches: A `Batches`, a DataLoader or a list of (inputs, targets); its epoch 0 is read.
        steps: How many batches to read at most.
        precision: "32-true", "bf16-mixed", "16-mixed" or "auto".
        device: Where to compute; None: where the model is.
    Raises:
        InputError: if `steps` is below 1 or there are no batches.
    References:
        Li et al., "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning", ECCV 2020.
        arXiv:2007.02491.
    """
    if steps < 1:
        raise InputError(f"steps={steps} must be at least 1")
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        return 0
    momenta = [layer.momentum for layer in layers]
    before = [{name: t.clone() for name, t in layer.named_buffers(recurse=False)} for layer in layers]
    read = 0
    try:
        with forward_only(model, precision, device) as call:
            for layer in layers:
                layer.reset_running_stats()
                layer.momentum = None  # cumulative average
                layer.train()
            for batch in islice(as_batches(batches).epoch(0), steps):
                call(unpack(batch)[0])
                read += 1
        if not read:
            raise InputError("batch norm cannot be recalibrated: the data has no batches")
    except BaseException:
        for layer, buffers in zip(layers, before, strict=True):
            _put_back(layer, buffers)
        raise
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    for layer, buffers in zip(layers, before, strict=True):
        if not int(layer.num_batches_tracked or 0):
            _put_back(layer, buffers)
    return read


def _put_back(layer: _BatchNorm, buffers: dict[str, torch.Tensor]) -> None:
    for name, buffer in layer.named_buffers(recurse=False):
        buffer.copy_(buffers[name])
