"""Growing regularisation: an L2 penalty per unit that rises until those which leave are next to nothing."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from billhook.criteria._members import others, per_unit, weights
from billhook.graph import ChannelGroup, Plan
from billhook.graph.groups import Member
from billhook.methods._base import Problem
from billhook.methods._fixed_widths import FixedWidths
from billhook.methods._parts import Allocating
from billhook.methods._training import TrainingMethod
from billhook.methods._units import Tensors, factor, live_tensors, silence_
from billhook.options import Number, OrAuto, option
from billhook.train import StepContext

log = logging.getLogger("billhook")

# As published: 10,000 updates of 1e-4 from 0 to 1, every 5 steps, at lr 1e-3 with momentum 0.9.
_UPDATES = 10_000
WORK = 1e-3 / (1 - 0.9)  # by how much a step at λ = 1 shrinks the logarithm of a weight
_RAMP = WORK * 1.0 * 5 * _UPDATES / 2
_MUCH = 0.1  # what remains of units that leave, beyond which the removal will be felt


@dataclass(frozen=True)
class Ramp:
    """λ of each step: it begins at `low`, grows by `delta` every `every` steps, and ends at `top`."""

    first: int
    every: int
    delta: float
    top: float
    low: float = 0.0

    def at(self, step: int) -> float:
        """Return λ of `step`; 0 before the first one."""
        if step < self.first:
            return 0.0
        return min(self.top, self.low + self.delta * (1 + (step - self.first) // self.every))


def ramp_over(
    first: int, steps: int, top: float, *, low: float = 0.0, every: int | str, delta: float | str
) -> Ramp:
    """Return the ramp that goes from `low` to `top` in `steps`, unless `delta` says how steep it is."""
    if isinstance(every, str):
        every = max(1, steps // _UPDATES)
    if isinstance(delta, str):
        delta = (top - low) / max(1, steps // every)
    return Ramp(first, every, delta, top, low)


def work_rate(optimizer: torch.optim.Optimizer) -> float:
    """Return by how much one step at λ = 1 shrinks the logarithm of a weight: lr / (1 − momentum).

    The rate is the one the optimiser was made with, which is the peak of most schedules; half of it stands
    for their mean.
    """
    group = optimizer.param_groups[0]
    return 0.5 * float(optimizer.defaults["lr"]) / (1 - float(group.get("momentum", 0.0)))


def unit_means(tensors: Tensors, group: ChannelGroup) -> Tensor:
    """Return the mean |w| of the weights that make each unit: [size]."""
    total, count = torch.zeros(group.size), 0
    for m in makers(tensors, group):
        size = tensors[m.tensor].float().abs()
        total += per_unit(size.sum(others(size, m.axis)) if size.dim() > 1 else size, m).cpu()
        count += size.numel() // size.shape[m.axis] * m.width
    return total / max(1, count)


def makers(tensors: Tensors, group: ChannelGroup) -> tuple[Member, ...]:
    """Return the weights that make the group's channels, or, where there are none, all it has."""
    return weights(group, tensors, "out") or weights(group, tensors)


@torch.no_grad()
def penalise_(
    parameters: Mapping[str, nn.Parameter], members: Iterable[Member], penalties: Tensor, limit: float
) -> None:
    """Add λ_u · W_u to the gradients of every unit's slices, in place.

    Args:
        parameters: Of the network, by name.
        members: Which of them, and where their units lie.
        penalties: λ per unit: [size].
        limit: No larger λ is added; beyond 1 / lr a step would overshoot zero.
    """
    for m in members:
        parameter = parameters[m.tensor]
        if parameter.grad is None:
            continue
        penalty = factor(penalties.clamp(max=limit), m, parameter.detach(), fill=0.0)
        parameter.grad.add_(parameter * penalty)


@dataclass(frozen=True)
class Growing(Allocating, TrainingMethod):
    """Options of methods that let a penalty grow; "auto" stretches the published course over the run."""

    allocator: str = "uniform"
    ramp: float = option(0.6, Number(0.01, 1), "part of the run in which the penalty grows; then it stays")
    top: float | str = option(
        "auto", OrAuto(0), "largest penalty; auto: 1, as published, more where a run is short"
    )
    delta: float | str = option("auto", OrAuto(0), "growth per update (published 1e-4); auto: fits the ramp")
    every: int | str = option(
        "auto", OrAuto(1, integer=True), "steps per update (published 5 or 10); auto: ramp / 10,000"
    )

    def ramp_within(self, context: StepContext, first: int, low: float = 0.0) -> Ramp:
        """Return the ramp that begins at step `first`."""
        last = max(first + 1, round(self.ramp * context.total_steps))
        top = self.top
        if isinstance(top, str):
            top = max(1.0, _RAMP / (work_rate(context.optimizer) * (last - first) / 2))
        return ramp_over(first, last - first, top, low=low, every=self.every, delta=self.delta)


class GrowingCallback(FixedWidths):
    """Remembers widths and the units that stay; the penalty follows from the step.

    Subclasses say which penalty each unit has, and may choose the units later.
    """

    def __init__(self, method: Growing, problem: Problem) -> None:
        super().__init__(problem, method.allocating())
        self.growing = method

    def begin(self, context: StepContext) -> None:
        """Choose widths and units by the mean size of the weights that make them."""
        super().begin(context)
        keep = {g.id: torch.from_numpy(self.decided.keep[g.id].copy()) for g in self.groups}
        self.memory.update(keep=keep, ramps={})

    def penalties(self, context: StepContext) -> dict[str, Tensor]:
        """Return λ per unit: the ramp's for the units that leave, none for the others."""
        now = self.ramp("leave").at(context.step)
        return {name: now * (~keep).float() for name, keep in self.memory["keep"].items()}

    def after_backward(self, context: StepContext) -> None:
        """Add the gradient of the penalty."""
        parameters = dict(context.model.named_parameters())
        rate = max(float(group["lr"]) for group in context.optimizer.param_groups)
        limit = 1 / rate if rate > 0 else math.inf  # a warm-up may begin at 0
        for name, penalties in self.penalties(context).items():
            penalise_(parameters, self.penalised[name], penalties, limit)

    def plan(self, context: StepContext) -> Plan:
        """Return the plan; what leaves is silenced, whatever has remained of it."""
        tensors = live_tensors(context.model)
        plan = self.plan_with({name: stays.numpy() for name, stays in self.memory["keep"].items()})
        left = self._remaining(tensors)
        if left > _MUCH:
            log.warning(
                "the penalty had too few steps: units that leave still weigh %.0f %% of those that stay; "
                "train longer",
                100 * left,
            )
        silence_(tensors, self.groups, plan.keep)
        return plan.with_made_by(remaining=left)

    def scores(self, context: StepContext) -> dict[str, Tensor]:
        """Return the mean |w| per unit of every group."""
        tensors = live_tensors(context.model)
        return {g.id: unit_means(tensors, g) for g in self.groups}

    def ramp(self, name: str) -> Ramp:
        """Return a ramp that `begin` has put into memory."""
        return Ramp(**self.memory["ramps"][name])

    @cached_property
    def penalised(self) -> dict[str, tuple[Member, ...]]:
        """The trainable tensors of each group that the penalty acts on."""
        tensors = live_tensors(self.problem.model)
        trainable = {n for n, p in self.problem.model.named_parameters() if p.requires_grad}
        return {
            g.id: tuple(m for m in self.penalises(tensors, g) if m.tensor in trainable) for g in self.groups
        }

    def penalises(self, tensors: Tensors, group: ChannelGroup) -> tuple[Member, ...]:
        """Return the members of a group that the penalty acts on: the weights that make it."""
        return makers(tensors, group)

    def _remaining(self, tensors: Tensors) -> float:
        """Return the largest ratio of the mean |w| of what leaves to that of what stays, over all groups."""
        ratios = [0.0]
        for group in self.groups:
            sizes, keep = unit_means(tensors, group), self.memory["keep"][group.id]
            if not keep.all():
                ratios.append(float(sizes[~keep].mean() / sizes[keep].mean().clamp_min(1e-30)))
        return max(ratios)
