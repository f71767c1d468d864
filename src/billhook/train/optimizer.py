"""The optimiser, and which parameters decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from billhook.errors import InputError
from billhook.train.config import FitConfig

_NORMS = (
    nn.modules.batchnorm._NormBase,  # batch and instance norm of every dimension, and SyncBatchNorm
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the trainable parameters in two groups: those that decay, and those that do not.

    Norm layers, biases and all other vectors and scalars (layer scale, temperatures) do not decay.

    Raises:
        InputError: if no parameter is trainable.
    """
    decay: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            spared = isinstance(module, _NORMS) or name == "bias" or parameter.dim() <= 1
            (rest if spared else decay).append(parameter)
    if not seen:
        raise InputError("the model has no trainable parameter; is requires_grad off everywhere?")
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return [g for g in groups if g["params"]]


def make_optimizer(model: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    """Return the optimiser that `config` names, over the trainable parameters of `model`."""
    groups = parameter_groups(model, config.weight_decay)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999))
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load `state`, giving every tensor the memory layout of its parameter.

    A checkpoint stores plain layouts. Arithmetic on mixed layouts may round differently, and a resumed
    run has to go on bit by bit like the one that was interrupted.
    """
    optimizer.load_state_dict(state)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value).detach()
