"""`fresh`: an untrained twin of a network."""

from __future__ import annotations

import copy

import torch
from torch import nn

from billhook.train.rng import preserved_rng, seed_rng


def fresh(model: nn.Module, seed: int) -> nn.Module:
    """Return a copy of a network as it was before training: with new weights, drawn from `seed`.

    Modules draw them as they do when they are made (`reset_parameters`). Weights of other modules, such as a
    transformer's positions, keep only their mean and spread. The caller's random state is left alone.

    Args:
        model: Any network; left as it is.
        seed: Of all draws.
    """
    twin = copy.deepcopy(model)
    drawn: set[int] = set()
    with preserved_rng(), torch.no_grad():
        seed_rng(seed)
        # Inner modules first, so that those around them may overrule what they drew.
        for module in reversed(list(twin.modules())):
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if callable(reset):
                reset()
                drawn |= {id(p) for p in module.parameters(recurse=False)}
        for parameter in twin.parameters():
            if id(parameter) not in drawn and parameter.numel() > 1:
                spread, mean = torch.std_mean(parameter.float())
                parameter.copy_(mean + spread * torch.randn(parameter.shape, device=parameter.device))
    return twin
