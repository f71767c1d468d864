"""Whether what `sparsify` was given can be: sparsities by name, and weights that are numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from billhook.errors import InputError, NameNotFoundError
from billhook.graph.patterns import Pattern
from billhook.graph.weights import WeightLayer
from billhook.sparse.allocation import NEAR, require_sparsity


def checked_sparsities(
    sparsities: Mapping[str, float], patterns: Mapping[str, Pattern], layers: Sequence[WeightLayer]
) -> dict[str, float]:
    """Return the sparsity of every weight that has a pattern; names may be those of layers."""
    called = {name: la for la in layers for name in la.names if la.tensor in patterns}
    found: dict[str, float] = {}
    for name, sparsity in sparsities.items():
        if name not in called:
            raise NameNotFoundError("weight with a pattern", name, called)
        what, layer = f"sparsities: that of {name!r}", called[name]
        require_sparsity(sparsity, what)
        least, most = patterns[layer.tensor].sparsities(layer.view)
        if not least - NEAR <= sparsity <= most + NEAR:
            raise InputError(
                f"{what} is {sparsity:g}, but its pattern leaves {least:.4f} to {most:.4f} at zero"
            )
        found[layer.tensor] = float(min(max(sparsity, least), most))
    if missing := sorted(set(patterns) - set(found)):
        raise InputError(f"sparsities: {missing[0]!r} has a pattern but no sparsity")
    return found


def require_finite(model: nn.Module, patterns: Mapping[str, Pattern]) -> None:
    """Raise `InputError` if a weight with a pattern holds NaN or infinity."""
    weights = dict(model.named_parameters(remove_duplicate=False))
    for name in patterns:
        if not bool(torch.isfinite(weights[name].detach()).all()):
            raise InputError(
                f"{name!r} holds NaN or infinity, which no pattern has; look at how it was trained"
            )
