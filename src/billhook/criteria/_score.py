"""`score`: a criterion over all groups of a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from billhook.criteria._base import Calibration, Criterion, ScoreContext
from billhook.errors import InputError
from billhook.graph.groups import ChannelGroup
from billhook.graph.inputs import ExampleInputs

_LISTED = 5  # names in a message


def score(
    criterion: Criterion,
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    *,
    calibration: Calibration | None = None,
    seed: int = 0,
    example_inputs: ExampleInputs | None = None,
) -> dict[str, Tensor]:
    """Return the scores of every group, by id; the model is left untouched.

    Args:
        criterion: What to judge by.
        model: Network the groups belong to.
        groups: Groups to score, usually the prunable ones in scope.
        calibration: For criteria that learn from data.
        seed: For criteria that draw.
        example_inputs: For criteria that need a shape to run the model on, but no data.
    Returns:
        {group id: [size] float32 on the CPU}; higher = keep.
    Raises:
        InputError: if the criterion cannot judge a group (lists all), needs data and has none, or finds
            numbers that are not finite.
    """
    context = ScoreContext.of(model, seed, example_inputs)
    check_supported(criterion, groups, context)
    with torch.no_grad():
        context = criterion.prepare(model, groups, context, calibration)
        scores = {g.id: criterion.score(g, context).to("cpu", torch.float32) for g in groups}
    for group in groups:
        if not torch.isfinite(scores[group.id]).all():
            raise InputError(
                f"criterion {_name(criterion)!r} gives scores that are not finite for group {group.id!r}"
                f"{_broken_tensors(group, context)}"
            )
    return scores


def check_supported(criterion: Criterion, groups: Sequence[ChannelGroup], context: ScoreContext) -> None:
    """Raise `InputError` if the criterion cannot judge a group; lists all."""
    reasons = {g.id: criterion.unsupported(g, context) for g in groups}
    problems = [f"{name!r}: {reason}" for name, reason in reasons.items() if reason]
    if problems:
        more = f" and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise InputError(
            f"criterion {_name(criterion)!r} cannot judge group {'; group '.join(problems[:_LISTED])}{more}. "
            "Exclude such groups with scope=Scope(exclude=…) or choose another criterion"
        )


def _broken_tensors(group: ChannelGroup, context: ScoreContext) -> str:
    bad = [m.tensor for m in group.members if not torch.isfinite(context.tensors[m.tensor]).all()]
    return f"; tensor {bad[0]!r} holds NaN or infinite values" if bad else ""


def _name(criterion: Criterion) -> str:
    return type(criterion).__module__.rpartition(".")[2].rstrip("_")
