"""Losses as pure functions of outputs and targets."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from billhook.errors import InputError


def cross_entropy(outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy.

    Args:
        outputs: Logits; shape [batch, classes, ...], any float dtype (computed in float32).
        targets: Class indices [batch, ...], or probabilities of the shape of `outputs`.
        label_smoothing: Share of the target that is spread evenly over all classes.
    References:
        Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016. arXiv:1512.00567.
    """
    return F.cross_entropy(outputs.float(), targets, label_smoothing=label_smoothing)


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return how far the student's answers are from the teacher's.

    Kullback-Leibler divergence of the softened answers, times temperature² so that its gradient keeps
    its size when the temperature changes; mean over the batch and, for dense outputs, all positions.

    Args:
        student: Logits [batch, classes, ...].
        teacher: Logits of the same shape; no gradient flows into them.
        temperature: Above 0; larger values stress the small probabilities.
    Raises:
        InputError: if the shapes differ.
    References:
        Hinton et al., "Distilling the Knowledge in a Neural Network", 2015. arXiv:1503.02531.
    """
    if student.shape != teacher.shape:
        raise InputError(
            f"the teacher answers with shape {list(teacher.shape)}, the model with {list(student.shape)}; "
            "distillation needs the same classes in both"
        )
    p = F.log_softmax(teacher.detach().float() / temperature, dim=1)
    q = F.log_softmax(student.float() / temperature, dim=1)
    return F.kl_div(q, p, log_target=True, reduction="none").sum(1).mean() * temperature**2


def check_classification(outputs: Any, targets: Any) -> None:
    """Explain why the built-in cross-entropy cannot be computed, if it cannot.

    Raises:
        InputError: if the outputs are no tensor, the shapes do not fit, or a class index is out of range.
    """
    if not isinstance(outputs, Tensor):
        raise InputError(
            f"the model returns a {type(outputs).__name__}, not a tensor of logits; say where the logits "
            "are, e.g. output=lambda result: result.logits, or give your own loss(outputs, targets)"
        )
    if not isinstance(targets, Tensor) or outputs.dim() < 2:
        raise InputError(
            "the built-in loss needs logits [batch, classes, ...] and a tensor of targets, not "
            f"{_shape(outputs)} and {_shape(targets)}; give your own loss(outputs, targets)"
        )
    if targets.is_floating_point():
        if targets.shape != outputs.shape:
            raise InputError(f"target probabilities {_shape(targets)} do not fit logits {_shape(outputs)}")
        return
    expected = outputs.shape[:1] + outputs.shape[2:]
    if targets.shape != expected:
        raise InputError(
            f"targets {_shape(targets)} do not fit logits {_shape(outputs)}: expected {list(expected)}"
        )
    classes, real = outputs.shape[1], targets[targets != -100]
    if real.numel() and not 0 <= int(real.min()) <= int(real.max()) < classes:
        raise InputError(
            f"targets hold classes {int(real.min())} to {int(real.max())}, but the model has {classes} "
            f"outputs (0 to {classes - 1}); does the last layer fit the data set?"
        )


def _shape(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return f"a {type(value).__name__}"
