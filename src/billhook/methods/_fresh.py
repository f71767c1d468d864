"""Weights drawn anew: a smaller network as it would have been born."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from billhook.errors import InputError
from billhook.graph import Plan, apply
from billhook.graph.put_back import put_back
from billhook.train.fresh import draw_anew_, reset_of

_LISTED = 5  # names in a message


def require_drawable(model: nn.Module) -> None:
    """Raise `InputError` if modules have parameters of their own and cannot draw them; names them."""
    problems = [
        f"{name or 'the network itself'} ({type(module).__name__})"
        for name, module in model.named_modules()
        if reset_of(module) is None and any(True for _ in module.parameters(recurse=False))
    ]
    if problems:
        more = f" and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise InputError(
            f"weights cannot be drawn anew: {', '.join(problems[:_LISTED])}{more} has parameters and no "
            "reset_parameters(); give the class one, or keep the weights"
        )


def fresh(model: nn.Module, plan: Plan, seed: int) -> nn.Module:
    """Return a copy of `model` whose part that stays under `plan` has new weights.

    They are drawn for the smaller network, whose layers have fewer inputs, by every module's
    `reset_parameters`; what leaves keeps its old ones.

    Args:
        model: In full size; not touched.
        plan: Which channels leave.
        seed: Of the draws.
    Raises:
        InputError: as `require_drawable`.
    """
    channels = replace(plan, patterns={})
    small = apply(model, channels)
    require_drawable(small)
    draw_anew_(small, seed)
    return put_back(model, channels, small)
