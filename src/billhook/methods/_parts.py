"""A criterion and an allocator as parts of a method: options that name them, and scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from billhook.allocate import allocators
from billhook.allocate.allocator import Allocator
from billhook.criteria import Criterion, criteria, score
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
        """Return the allocator."""
        return configure(
            allocators.get(self.allocator), self.allocator_options, what=f"allocator {self.allocator!r}"
        )


def scores_of(problem: Problem, model: nn.Module, criterion: Criterion) -> dict[str, Tensor]:
    """Return the scores of the problem's groups by the weights of `model`, and by all else that there is."""
    return score(
        criterion,
        model,
        problem.groups,
        calibration=problem.calibration,
        seed=problem.seed,
        example_inputs=problem.example_inputs,
    )
