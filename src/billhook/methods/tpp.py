"""TPP: GReg-1 that also pulls the units that stay apart from those that leave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from billhook.graph import ChannelGroup
from billhook.graph.groups import Member
from billhook.methods._base import Problem
from billhook.methods._growing import Growing, makers
from billhook.methods._training import MethodCallback
from billhook.methods._units import Tensors
from billhook.methods.greg1 import Greg1Callback
from billhook.options import OrAuto, option
from billhook.registry import Info
from billhook.train import StepContext

INFO = Info(
    "growing penalty that keeps trainability: decorrelates units that leave, silences their norms",
    "Wang, Fu, Trainability Preserving Neural Pruning, ICLR 2023, arXiv:2207.12534",
    needs_data=True,
    trains=True,
    notes="for SGD; plan.made_by['remaining'] says what was left of the units when they were removed",
)

_WEIGHT, _LR = 1000.0, 1e-3  # as published


def decorrelation(rows: Tensor, leaves: Tensor) -> Tensor:
    """Return mean((W Wᵀ − T)²), where T is W Wᵀ, held fixed, with the rows and columns of `leaves` set to 0.

    Only entries that a filter which leaves takes part in count: they are pulled to 0, so that the filters
    that stay need not replace what correlated ones did.

    Args:
        rows: One filter per row: [n, d].
        leaves: Which rows leave: [n], boolean.
    """
    gram = rows @ rows.T
    counted = leaves[:, None] | leaves[None, :]
    return (gram * counted).square().mean()


@dataclass(frozen=True)
class Tpp(Growing):
    """As `greg1`, plus a decorrelation term in the loss, and the penalty on norms and biases as well.

    The loss gains weight · λ · Σ mean((W Wᵀ − T)²) over the layers that make a group's channels, with the
    λ of the units that leave. Scales, shifts and biases of those units are pushed to zero with their
    weights, so that what is removed is zero, not a constant.

    References:
        Wang, Fu, "Trainability Preserving Neural Pruning", ICLR 2023; constants from the authors' code.
    Differs from the source:
        As `greg1`. weight="auto" is the published 1000 as long as learning rate and largest penalty are the
        published 1e-3 and 1, and less in proportion where they are larger: their product is what a step sees.
        Units of several channels count channel by channel.
    """

    weight: float | str = option(
        "auto", OrAuto(0), "weight of the decorrelation; auto: 1000, as published, less at a large lr"
    )

    def callback(self, problem: Problem) -> MethodCallback:
        """Return what penalises and decorrelates."""
        return TppCallback(self, problem)


class TppCallback(Greg1Callback):
    """Nothing more to remember than GReg-1 has."""

    def __init__(self, method: Tpp, problem: Problem) -> None:
        super().__init__(method, problem)
        self.method = method

    def penalises(self, tensors: Tensors, group: ChannelGroup) -> tuple[Member, ...]:
        """Return the weights that make the channels, their biases, and all scales and shifts behind them."""
        made = makers(tensors, group)
        vectors = [m for m in group.members if m.role != "in" and tensors[m.tensor].dim() == 1]
        return (*made, *(m for m in vectors if m not in made))

    def loss_term(self, context: StepContext) -> Tensor | None:
        """Return the weighted decorrelation of all layers that make channels."""
        ramp, weight = self.ramp("leave"), self.method.weight
        if isinstance(weight, str):
            weight = _WEIGHT * min(1.0, _LR / float(context.optimizer.defaults["lr"])) / max(1.0, ramp.top)
        terms = [decorrelation(rows, leaves) for rows, leaves in self._filters(context)]
        return weight * ramp.at(context.step) * torch.stack(terms).sum() if terms else None

    def _filters(self, context: StepContext) -> Iterator[tuple[Tensor, Tensor]]:
        parameters = dict(context.model.named_parameters())
        for group in self.groups:
            leaves = ~self.memory["keep"][group.id]
            for m in self.penalised[group.id]:
                weight = parameters[m.tensor]
                if m.role != "out" or weight.dim() < 2 or not leaves.any():
                    continue
                rows = weight.movedim(m.axis, 0).flatten(1).float()
                if not np.array_equal(m.index.ravel(), np.arange(len(rows))):
                    rows = rows[torch.from_numpy(m.index.ravel()).to(weight.device)]
                yield rows, leaves.to(weight.device).repeat_interleave(m.width)


ENTRY = Tpp
