"""Small searches: a network, its data and what candidates are; used by the tests of `billhook.search`."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import nn

from billhook.allocate.budget import Budget
from billhook.search.objective import Evaluation, Objective
from billhook.search.problem import SearchProblem, Settings
from billhook.search.space import Genes, Space
from tests.networks import CLASSES, build

Batch = tuple[torch.Tensor, torch.Tensor]


@cache
def batches(shape: tuple[int, ...] = (3, 12, 12), count: int = 4, seed: int = 0) -> tuple[Batch, ...]:
    """Return batches of 16 random images that a random linear map has labelled."""
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(torch.Size(shape).numel(), CLASSES, generator=torch.Generator().manual_seed(7))
    images = [torch.randn(16, *shape, generator=generator) for _ in range(count)]
    return tuple((x, (x.flatten(1) @ teacher).argmax(1)) for x in images)


def problem(name: str = "plain", budget: Budget | None = None, **given: Any) -> SearchProblem:
    """Return a search on one of the small networks; `given` are fields of the problem or of its settings."""
    model, inputs = build(name)
    return problem_of(given.pop("model", model), inputs, budget, **given)


def problem_of(model: nn.Module, inputs: Any, budget: Budget | None = None, **given: Any) -> SearchProblem:
    """Return a search on a network that takes one image."""
    of_settings = {k: v for k, v in given.items() if k in Settings.__dataclass_fields__}
    of_problem = {k: v for k, v in given.items() if k not in of_settings}
    shape = tuple(inputs.shape[1:])
    made = SearchProblem(
        model,
        inputs,
        budget,
        data=list(batches(shape)),
        validation=list(batches(shape, 2, seed=1)),
        settings=Settings(**{"images": 32, "calibration": 32, **of_settings}),
        round_to=4,
    )
    return replace(made, **of_problem)


class Table(Objective):
    """Candidates are worth what a function of their fractions says; counts how often it is asked."""

    def __init__(self, space: Space, worth: Any, key: str = "table") -> None:
        self.space, self.worth, self.key = space, worth, key
        self.asked: list[tuple[int, ...]] = []

    def evaluate(self, genes: Genes) -> Evaluation:
        """Return the worth as accuracy, and one minus it as loss."""
        self.asked.append(tuple(int(g) for g in genes))
        accuracy = float(self.worth(self.space.fractions(genes)[0]))
        return Evaluation(accuracy, 1 - accuracy, 0.001)
