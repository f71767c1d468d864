"""A criterion and an allocator as parts of a method: options that name them, and scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from billhook.allocate import allocators
from billhook.allocate.allocator import Allocator
from billhook.criteria import Criterion, criteria, score
from billhook.graph.groups import ChannelGroup
from billhook.graph.layers import LayeredNetwork
from billhook.methods._base import Problem
from billhook.options import Configurable, configure


@dataclass(frozen=True)
class Scoring(Configurable):
    """Options of methods that work with any criterion.

    Attributes:
        criterion: Name of the criterion that says which units of a group stay.
        options: Its options.
    """

    criterion: str = "l2"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.scoring()  # wrong names and options fail here, not after the capture of a large network

    def scoring(self) -> Criterion:
        """Return the criterion."""
        return configure(criteria.get(self.criterion), self.options, what=f"criterion {self.criterion!r}")


@dataclass(frozen=True)
class Allocating(Configurable):
    """Options of methods that work with any allocator; a method may redefine the default.

    Attributes:
        allocator: Name of the allocator that says how many units of each group stay.
        allocator_options: Its options.
    """

    allocator: str = "global"
    allocator_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.allocating()  # as in `Scoring`

    def allocating(self) -> Allocator:
        """Return the allocator, told what kind of scores it will see."""
        chosen = configure(
            allocators.get(self.allocator), self.allocator_options, what=f"allocator {self.allocator!r}"
        )
        return chosen.judging(additive=isinstance(self, Scoring) and self.scoring().additive)


def scores_of(problem: Problem, model: nn.Module, criterion: Criterion) -> dict[str, Tensor]:
    """Return the scores of the problem's groups by the weights of `model`, and by all else that there is."""
    scores = score(
        criterion,
        model,
        problem.groups,
        calibration=problem.calibration,
        seed=problem.seed,
        example_inputs=problem.example_inputs,
    )
    if isinstance(model, LayeredNetwork) and model.own_filters:
        for group in problem.groups:
            scores[group.id] = _copies_apart(group, scores[group.id], model.own_filters)
    return scores


def _copies_apart(group: ChannelGroup, values: Tensor, own_filters: Mapping[str, int]) -> Tensor:
    """Return scores in which a group's copy filters are on average worth what its own filters are.

    Copy filters begin as rows of the identity (see the fusion pass `dense_shortcut`), all of the norm 1,
    whatever size the block's own filters have: judged together, one kind would leave before the other.
    """
    made = next((m for m in group.members if m.role == "out" and m.tensor in own_filters), None)
    if made is None:
        return values
    copies = torch.from_numpy(made.index[:, 0] >= own_filters[made.tensor])
    theirs = values[copies].abs().mean()
    if not copies.any() or copies.all() or theirs == 0:
        return values
    return torch.where(copies, values * (values[~copies].abs().mean() / theirs), values)
