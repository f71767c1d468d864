"""Weights drawn anew, as modules draw them when they are made."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from billhook.train.rng import preserved_rng, seed_rng


def draw_anew_(model: nn.Module, seed: int) -> list[str]:
    """Let all modules draw their weights anew, in place; return the parameters that nobody draws.

    The caller's random state is left alone.

    Args:
        model: Any network.
        seed: Of all draws.
    """
    drawn: set[int] = set()
    with preserved_rng(), torch.no_grad():
        seed_rng(seed)
        # Parts first: what a module does to its parts when it draws anew has the last word.
        for module in reversed(list(model.modules())):
            reset = reset_of(module)
            if reset is not None:
                reset()
                drawn |= {id(p) for p in module.parameters(recurse=False)}
    return [name for name, parameter in model.named_parameters() if id(parameter) not in drawn]


def reset_of(module: nn.Module) -> Callable[[], object] | None:
    """Return what draws a module's own parameters anew, None if it has nothing of that kind."""
    for name in ("reset_parameters", "_reset_parameters"):  # the latter in torch's attention
        found = getattr(module, name, None)
        if callable(found):
            return found  # type: ignore[no-any-return]
    return None
