"""Soft filter pruning: the least units are zeroed again and again, and may come back in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from billhook.allocate.rounding import keep_best
from billhook.graph.plan import Keep
from billhook.methods._asymptotic import SCHEDULES, AsymptoticCallback
from billhook.methods._base import Problem
from billhook.methods._parts import Allocating, Scoring, scores_of
from billhook.methods._training import MethodCallback, TrainingMethod
from billhook.methods._units import live_tensors, open_gates_, producers, readers, scale_, silence_
from billhook.options import Number, OneOf, option
from billhook.registry import Info
from billhook.train import StepContext

INFO = Info(
    "zeroes the least units now and then and lets them come back",
    "He et al., Soft Filter Pruning, IJCAI 2018, arXiv:1808.06866",
    needs_data=True,
    trains=True,
    notes="any criterion; rate_schedule='asymptotic' is ASFP, also there as 'asfp'",
)


@dataclass(frozen=True)
class Soft(Allocating, Scoring, TrainingMethod):
    """In every round the units with the smallest scores are zeroed, and then trained on like all others.

    The widths are fixed before the first step; which units make them up may change until the end. What is
    zeroed at the end stays zero, so removing it changes nothing.

    Attributes:
        criterion: The source's are "l2" (SFP) and "fpgm".
        allocator: The source prunes every layer at one rate.

    References:
        He et al., "Soft Filter Pruning for Accelerating Deep Convolutional Neural Networks", IJCAI 2018,
        algorithm 1. arXiv:1808.06866.
    Differs from the source:
        Rounds are spread over the steps of the run, not one per epoch, because a short run has few epochs;
        `rounds` equal to the epochs is the source's rhythm.
        By default a unit is zeroed where it is read, not where it is made. Its filters stay, its output
        counts for nothing, and the very next step gives its readers a gradient. A zeroed filter in front of
        a batch norm still sends out that norm's shift, so the unit is not silent; with the shift zeroed as
        well, it sits where ReLU has no slope, and never comes back. zeroed="filters" is the source's way
        (filters and biases, no shifts); the last round then silences the readers too. In short runs the
        norm's statistics never settle: on Fashion-MNIST (30 % of the MACs, 200 steps from a trained network,
        one seed) a ResNet-8 and a small VGG were right about 87 % and 88 % of the time straight after removal
        with readers zeroed, 27 % and 16 % with filters zeroed.
        A rising rate is final after half of the run (`until`), so that the last rounds change little.
        Coupled layers are zeroed together, and judged together unless options={"members": "out"}.
    """

    allocator: str = "uniform"
    rounds: int = option(20, Number(1, integer=True), "how often units are zeroed, evenly over the run")
    rate_schedule: str = option("constant", OneOf(*SCHEDULES), "how the number of zeroed units grows")
    until: float = option(0.5, Number(0.01, 1), "part of the run after which the number is the final one")
    zeroed: str = option(
        "readers", OneOf("readers", "filters"), "what is zeroed: who reads, or who makes a unit"
    )

    def callback(self, problem: Problem) -> MethodCallback:
        """Return what zeroes units."""
        return SoftCallback(self, problem)


class SoftCallback(AsymptoticCallback):
    """Remembers nothing but the widths: which units are zero is seen anew in every round."""

    def __init__(self, method: Soft, problem: Problem) -> None:
        super().__init__(
            problem,
            method.allocating(),
            rounds=method.rounds,
            schedule=method.rate_schedule,
            until=method.until,
        )
        self.method, self.criterion = method, method.scoring()

    def scores(self, context: StepContext) -> dict[str, Tensor]:
        """Return the criterion's scores."""
        return scores_of(self.problem, context.model, self.criterion)

    def hold_round(self, context: StepContext, counts: Mapping[str, int], *, last: bool) -> dict[str, Keep]:
        """Zero all units but the best `counts`."""
        tensors = live_tensors(context.model)
        open_gates_(context.model, self.groups)
        scores = self.scores(context)
        keep = {name: keep_best(values.double().numpy(), counts[name]) for name, values in scores.items()}
        if self.method.zeroed == "filters":
            for group in self.groups:
                stays = torch.from_numpy(keep[group.id]).float()
                scale_(tensors, producers(group, tensors) or readers(group, tensors), stays)
        if self.method.zeroed == "readers" or last:
            silence_(tensors, self.groups, keep)
        return keep


ENTRY = Soft
