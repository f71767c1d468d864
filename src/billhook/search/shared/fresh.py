"""`fresh`: an untrained twin of a network."""

from __future__ import annotations

import copy

import torch
from torch import nn

from billhook.train.fresh import draw_anew_
from billhook.train.rng import derive_seed, preserved_rng, seed_rng


def fresh(model: nn.Module, seed: int) -> nn.Module:
    """Return a copy of a network as it was before training: with new weights, drawn from `seed`.

    Weights that no module knows how to draw, such as a transformer's positions, keep only their mean and
    spread. The caller's random state is left alone.

    Args:
        model: Any network; left as it is.
        seed: Of all draws.
    """
    twin = copy.deepcopy(model)
    left = set(draw_anew_(twin, seed))
    with preserved_rng(), torch.no_grad():
        seed_rng(derive_seed(seed, 1))
        for name, parameter in twin.named_parameters():
            if name in left and parameter.numel() > 1:
                spread, mean = torch.std_mean(parameter.float())
                parameter.copy_(mean + spread * torch.randn(parameter.shape, device=parameter.device))
    return twin
