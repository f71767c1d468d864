"""GReg-2: a penalty on all units shows which ones give way; those are pushed to zero."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from billhook.allocate.rounding import keep_best
from billhook.methods._base import Problem
from billhook.methods._growing import WORK, Growing, GrowingCallback, ramp_over, work_rate
from billhook.methods._training import MethodCallback
from billhook.options import Number, OrAuto, option
from billhook.registry import Info
from billhook.train import StepContext

INFO = Info(
    "a growing penalty on all units shows which give way, then removes those",
    "Wang et al., Neural Pruning via Growing Regularization, ICLR 2021, arXiv:2012.09243",
    needs_data=True,
    trains=True,
    notes="for SGD; plan.made_by['remaining'] says what was left of the units when they were removed",
)

_PICKING = WORK * 1e-2 * 5_000 / 2  # as published: λ from 0 to 0.01 in 1,000 updates, every 5 steps


@dataclass(frozen=True)
class Greg2(Growing):
    """Lets λ grow for all units first; the ones that are smallest then are pushed to zero as in `greg1`.

    A penalty moves weights less where the loss is curved: ŵ = (H + λI)⁻¹ H w*. Under the same penalty for
    all, sizes drift apart by curvature, and plain L1 then ranks much as a Hessian would. From then on the
    units that stay are penalised with −γ, the weight decay, so that they recover.

    Widths come from the budget at the first step, units at the end of the `pick` phase. Norms, biases,
    `top` and the record of what remained: see `greg1`.

    References:
        Wang et al., "Neural Pruning via Growing Regularization", ICLR 2021.
    Differs from the source:
        As `greg1`. pick_top="auto" is the penalty that shrinks a weight without curvature as much (by 22 %)
        as the published one does at the published learning rate, however long the run is. Where weight decay
        is decoupled (AdamW) units that stay recover without a negative penalty.
    """

    pick: float = option(0.1, Number(0.001, 0.9), "part of the run in which all units are penalised")
    pick_top: float | str = option(
        "auto", OrAuto(0), "penalty at which units are chosen (published 0.01); auto: as strong in this run"
    )
    recover: float | str = option(
        "auto", OrAuto(0), "negative penalty of units that stay (published 1e-4); auto: the weight decay"
    )

    def callback(self, problem: Problem) -> MethodCallback:
        """Return what penalises and chooses."""
        return Greg2Callback(self, problem)


class Greg2Callback(GrowingCallback):
    """Remembers whether the units have been chosen."""

    def __init__(self, method: Greg2, problem: Problem) -> None:
        super().__init__(method, problem)
        self.method = method

    def begin(self, context: StepContext) -> None:
        """Choose widths; the penalty of all units grows first, then that of the units that leave."""
        super().begin(context)
        method = self.method
        steps = min(max(1, round(method.pick * context.total_steps)), max(1, context.total_steps - 1))
        top = method.pick_top
        if isinstance(top, str):
            top = _PICKING / (work_rate(context.optimizer) * max(1, steps) / 2)
        picking = ramp_over(0, steps, top, every=method.every, delta="auto")
        leaving = method.ramp_within(context, steps, low=top)
        self.memory["ramps"].update(pick=asdict(picking), leave=asdict(leaving))
        self.memory["picked"] = False

    def before_step(self, context: StepContext) -> None:
        """Choose the units when the first phase is over."""
        super().before_step(context)
        if not self.memory["picked"] and context.step >= self.ramp("leave").first:
            self._pick(context)

    def penalties(self, context: StepContext) -> dict[str, Tensor]:
        """Return λ per unit: one for all before the choice; afterwards λ or −γ."""
        if not self.memory["picked"]:
            now = self.ramp("pick").at(context.step)
            return {name: torch.full(keep.shape, now) for name, keep in self.memory["keep"].items()}
        now, back = self.ramp("leave").at(context.step), self._recovery(context.optimizer)
        return {name: torch.where(keep, -back, now) for name, keep in self.memory["keep"].items()}

    def _pick(self, context: StepContext) -> None:
        for name, scores in self.scores(context).items():
            stays = keep_best(scores.double().numpy(), int(self.memory["keep"][name].sum()))
            self.memory["keep"][name] = torch.from_numpy(stays)
        self.memory["picked"] = True

    def _recovery(self, optimizer: torch.optim.Optimizer) -> float:
        if not isinstance(self.method.recover, str):
            return float(self.method.recover)
        coupled = [g for g in optimizer.param_groups if not g.get("decoupled_weight_decay", False)]
        return max((float(g.get("weight_decay", 0.0)) for g in coupled), default=0.0)


ENTRY = Greg2
