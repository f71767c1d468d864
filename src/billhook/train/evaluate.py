"""Accuracy and loss on held-out batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from billhook.errors import InputError
from billhook.train.batches import as_batches, unpack
from billhook.train.inference import forward_only
from billhook.train.job import Loss, Output
from billhook.train.losses import check_classification, cross_entropy
from billhook.train.placement import to_device
from billhook.train.result import EvalResult

_IGNORED = -100  # the class index that torch's cross-entropy leaves out


def evaluate(
    model: nn.Module,
    batches: Any,
    *,
    precision: str = "32-true",
    device: torch.device | str | None = None,
    loss: Loss | None = None,
    output: Output | None = None,
) -> EvalResult:
    """Return accuracy and mean loss of a classifier (of a dense one: per position).

    One pass in eval mode; weights, buffers and the mode of every layer are as before afterwards.
    "bf16-mixed" is autocast: convolutions and products in bf16; batch norm is not folded.

    Args:
        model: Network in any mode.
        batches: A `Batches`, a DataLoader or a list of (inputs, targets); its epoch 0 is read.
        precision: "32-true", "bf16-mixed", "16-mixed" or "auto".
        device: Where to compute; None: where the model is.
        loss: `loss(outputs, targets)`, a mean over the batch; None: cross-entropy.
        output: Takes the logits out of what the model returns.
    Raises:
        InputError: if there are no batches, or outputs and targets do not fit together.
    """
    # Numbers stay on the device until the end: reading one after every batch would stop a GPU each time.
    losses: list[Tensor] = []
    hits: list[Tensor] = []
    judged: list[Tensor] = []
    rows = 0
    with forward_only(model, precision, device) as call:
        for batch in as_batches(batches).epoch(0):
            inputs, targets = unpack(batch)
            outputs = call(inputs)
            outputs = outputs if output is None else output(outputs)
            if isinstance(outputs, Tensor):
                targets = to_device(targets, outputs.device)
            if not losses:
                check_classification(outputs, targets)
            right = targets.argmax(1) if targets.is_floating_point() else targets
            losses.append((loss or cross_entropy)(outputs, targets).float() * len(targets))
            hits.append((outputs.argmax(1) == right).sum())
            judged.append((right != _IGNORED).sum())
            rows += len(targets)
    if not losses:
        raise InputError("there is nothing to evaluate: the data has no batches")
    samples = int(torch.stack(judged).sum())
    total = float(torch.stack(losses).cpu().double().sum())
    return EvalResult(int(torch.stack(hits).sum()) / max(1, samples), total / rows, samples)
