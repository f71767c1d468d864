"""Gator: one learned stochastic gate per unit, charged with what the unit costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from billhook.allocate.families.global_ import Global
from billhook.allocate.path import KEYS
from billhook.graph import Plan
from billhook.graph.branches import completed
from billhook.methods._base import Problem
from billhook.methods._decide import decide, formula_limits, full_costs
from billhook.methods._gates import (
    draw,
    excess,
    gate_gradient,
    logistic_noise,
    logit,
    steps_to_close,
    unit_costs,
)
from billhook.methods._latency_factors import latency_factors
from billhook.methods._training import MethodCallback, TrainingMethod
from billhook.methods._units import HeldSilence, Masks
from billhook.options import Flag, Number, OneOf, option
from billhook.registry import Info
from billhook.train import StepContext

INFO = Info(
    "learned stochastic gates that pay for MACs, memory or measured latency; removes residual branches too",
    "Passov et al., Gator: Customizable Channel Pruning with Gating, ICANN 2021, arXiv:2205.15404",
    needs_data=True,
    trains=True,
)

ORDER = Global(normalize="none", floor=0.0)  # gates are compared with each other as they are
_CLOSING = 0.25  # part of the gated steps in which a gate that nothing defends closes, at strength 1
_PACE = 10.0  # logarithm of how much the strength may grow in the gated steps, while the cost is behind
_FAINTEST, _STRONGEST = 0.05, 1000.0  # of the strength, times the initial one


@dataclass(frozen=True)
class Gator(TrainingMethod):
    """Trains gates and weights together; a gate that is more likely closed than open closes for good.

    Each gate is pulled shut by the share of the network's cost that its unit bears beside the units that are
    still there, and held open by what closing it would do to the loss. Gates with cheap units must prove
    little, those with expensive units must be defended strongly: the gate's step is ρ / w for a unit with
    cost share w, so that the pull of the cost is the same for all.

    Once the budget is met, or the gated part of the training is over, the widths are settled and the rest of
    the training repairs.

    References:
        Passov, David, Netanyahu, "Gator: Customizable Channel Pruning with Gating", ICANN 2021.
        arXiv:2205.15404; loss and optimiser as in the public code.
    Differs from the source:
        A gate multiplies the weights that read its channels, in place of the activations, and is drawn once
        per step, for all layers that read the unit and for all samples. That computes the same network, needs
        no pass over activations, and works for any layer. Nothing is drawn in evaluation.
        The strength λ is not fixed: the cost is to follow a straight line to the budget. Behind it, λ grows;
        ahead of it, nothing pulls and nothing closes.
        When the widths are settled they are rounded, which may bring closed units back, with the weights they
        had; a closed unit gets no gradient until then.
        Costs are those of the captured network (true resolutions, all layers), not of a table by stage.
    """

    cost: str = option("budget", OneOf("budget", "macs", "params", "latency"), "what gates are charged with")
    strength: float = option(1.0, Number(0), "weight λ of the cost at the beginning")
    probability: float = option(0.995, Number(0.51, 0.9999), "that a gate is open at the beginning")
    until: float = option(0.6, Number(0.05, 1), "part of the training after which widths are settled")
    gate_lr: float = option(0.0, Number(0), "learning rate ρ of the gates; 0 suits it to the number of steps")
    momentum: float = option(0.9, Number(0, 0.999), "of the gates")
    weight_decay: float = option(1e-4, Number(0), "of the gates")
    branches: bool = option(True, Flag(), "whether whole residual branches may leave")

    def callback(self, problem: Problem) -> MethodCallback:
        """Return the gates."""
        return GatorCallback(self, problem)


class GatorCallback(MethodCallback):
    """Remembers θ and momentum of all gates, which are shut, the strength, and the plan once settled."""

    def __init__(self, method: Gator, problem: Problem) -> None:
        super().__init__(problem)
        self.method = method
        self.sizes = [g.size for g in self.groups]
        self.costs = problem.graph.costs
        self._full = full_costs(problem.graph)
        columns = {name: i for i, name in enumerate(self.costs.group_ids)}
        self.columns = [columns[g.id] for g in self.groups]
        own = {g.id for g in self.groups}
        # A branch with groups that are out of scope must stay.
        self.branches = [b for b in problem.graph.branches if own.issuperset(b.groups) and method.branches]
        self._masks: Masks | None = None
        self._slope = torch.zeros(0)
        self._silence = HeldSilence(self.groups, self.branches)
        self._gone: tuple[Tensor, dict[str, Tensor]] | None = None

    def begin(self, context: StepContext) -> None:
        """Open all gates."""
        m = self.method
        count = sum(self.sizes)
        theta = torch.full((count,), logit(m.probability))
        limits = formula_limits(self.problem, decide(self.problem, self._split(theta), ORDER))
        steps = max(1.0, m.until * context.total_steps)
        natural = (1 - m.momentum) * steps_to_close(logit(m.probability)) / (_CLOSING * steps)
        self.memory.update(
            theta=theta,
            momentum=torch.zeros(count),
            open=torch.ones(count, dtype=torch.bool),
            strength=m.strength,
            limits=limits,
            rate=m.gate_lr or natural,
            charged=self._charged(),
            behind=False,
            plan="",
        )

    def before_step(self, context: StepContext) -> None:
        """Shut gates, settle if the time has come, else draw."""
        super().before_step(context)
        if self.memory["plan"]:
            return
        gated = max(1.0, self.method.until * context.total_steps)
        done = context.step / gated
        self._shut(done)
        if done >= 1 or self._excess(1.0) <= 1:
            self._settle()
            return
        self.memory["behind"] = self._excess(done) > 1
        change = math.exp(_PACE / gated)
        strength = self.memory["strength"] * (change if self.memory["behind"] else 1 / change)
        low, high = (factor * self.method.strength for factor in (_FAINTEST, _STRONGEST))
        self.memory["strength"] = min(high, max(low, strength))
        generator = torch.Generator().manual_seed(self.problem.seed * 1_000_003 + context.step)
        gates, self._slope = draw(self.memory["theta"], logistic_noise(len(self.memory["theta"]), generator))
        if self._masks is None:
            self._masks = Masks(context.model, self.groups)
        self._masks.put(self._split(gates * self.memory["open"]))

    def after_backward(self, context: StepContext) -> None:
        """Take the gates off the weights and move θ."""
        if self.memory["plan"] or self._masks is None:
            return
        slopes = self._masks.take_off()
        m, memory = self.method, self.memory
        task = torch.cat([slopes[g.id] for g in self.groups])
        share = self._shares()
        if not torch.isfinite(task).all():
            return  # a step that overflowed, which the optimiser leaves out as well
        strength = memory["strength"] if memory["behind"] else 0.0
        gradient = gate_gradient(self._slope, task, share, strength)
        # lr_e = ρ / w_e and wd_e = wd · w_e / g with the source's g = 0.2; ρ plays the part of lr · g.
        decay = m.weight_decay * share / 0.2 * memory["theta"]
        memory["momentum"].mul_(m.momentum).add_(gradient + decay)
        step = memory["rate"] / share * memory["momentum"]
        # One step must not take a gate further than the whole way: gradients of a few samples can be wild.
        memory["theta"] -= step.clamp(-1.0, 1.0) * memory["open"]

    def after_step(self, context: StepContext) -> None:
        """Keep silent what has left; branches that are gone add nothing."""
        if not self.memory["plan"]:
            return
        is_open = self.memory["open"]
        if self._gone is None or self._gone[0] is not is_open:
            self._gone = is_open, {name: ~units for name, units in self._split(is_open).items()}
        self._silence.hold_(context.model, self._gone[1])

    def plan(self, context: StepContext) -> Plan:
        """Return the settled plan."""
        if not self.memory["plan"]:
            self._shut(1.0)
            self._settle()
        self.after_step(context)
        return Plan.from_json(self.memory["plan"]).attached(self.problem.graph)

    def _shut(self, done: float) -> None:
        """Close gates below one half, the lowest first, as far as the line to the budget has come.

        Something stays of every group that is in no branch.
        """
        theta, is_open = self.memory["theta"], self.memory["open"]
        droppable = {name for b in self.branches for name in b.groups}
        group_of = torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes)).tolist()
        candidates = (is_open & (theta < 0)).nonzero().flatten()
        counts = self._counts()
        left = [int(units.sum()) for units in self._split(is_open).values()]
        closing: list[int] = []
        for unit in candidates[theta[candidates].argsort(stable=True)].tolist():
            group = group_of[unit]
            if left[group] == 1 and self.groups[group].id not in droppable:
                continue
            if self._excess(done, counts) <= 1:
                break
            left[group] -= 1
            counts[self.columns[group]] -= 1
            closing.append(unit)
        if closing:
            now_open = is_open.clone()
            now_open[closing] = False
            keep = {name: units.numpy() for name, units in self._split(now_open).items()}
            self.memory["open"] = self._flat(self._complete(keep))

    def _settle(self) -> None:
        opened = self._split(self.memory["open"])
        # What is shut is worse than anything that is open, however far its θ had come.
        ranked = torch.where(self.memory["open"], self.memory["theta"], self.memory["theta"] - 100.0)
        dropped = frozenset(name for name, units in opened.items() if not units.any())
        plan = decide(self.problem, self._split(ranked), ORDER, dropped=dropped)
        self.memory["plan"] = plan.to_json()
        self.memory["open"] = self._flat(plan.keep)

    def _complete(self, keep: dict[str, Any]) -> dict[str, Any]:
        sizes = {g.id: g.size for g in self.problem.graph.groups}
        return completed(self.branches, keep, sizes)

    def _counts(self) -> npt.NDArray[np.int64]:
        counts = np.array(self.costs.sizes, dtype=np.int64)
        counts[self.columns] = [int(units.sum()) for units in self._split(self.memory["open"]).values()]
        return counts

    def _excess(self, done: float, counts: npt.NDArray[np.int64] | None = None) -> float:
        """Return the largest ratio of a cost to where the line to its limit stands."""
        limits = self.memory["limits"]
        rows = (self._counts() if counts is None else counts)[None]
        found = self.costs.evaluate(rows, metrics=tuple(KEYS[m] for m in limits))
        costs = {m: float(found[KEYS[m]][0]) for m in limits}
        return excess(costs, self._full, limits, done)

    def _shares(self) -> Tensor:
        """Return the cost share w of every gate's unit, relative to the whole network as it was."""
        counts = self._counts()
        total = np.zeros(len(self.groups))
        for metric, factors in self.memory["charged"].items():
            each = unit_costs(self.costs, counts, KEYS[metric])[self.columns] / self._full[metric]
            total += each * np.asarray(factors) / len(self.memory["charged"])
        floor = 1e-3 * total.max()  # of units that cost (almost) nothing; their step would be without bound
        shares = torch.from_numpy(np.maximum(total, floor)).float()
        return shares.repeat_interleave(torch.tensor(self.sizes))

    def _charged(self) -> dict[str, list[float]]:
        """Return {metric: a factor for each group}; latency is MACs times what a group's MACs are worth."""
        bounds = self.problem.budget.bounds
        wanted = list(bounds) if self.method.cost == "budget" else [self.method.cost]
        ones = [1.0] * len(self.groups)
        charged = {m: ones for m in wanted if m != "latency"}
        if "latency" in wanted:
            charged["macs"] = latency_factors(self.problem)
        return charged

    def _split(self, values: Tensor) -> dict[str, Tensor]:
        parts = torch.split(values, self.sizes)
        return {g.id: part.clone() for g, part in zip(self.groups, parts, strict=True)}

    def _flat(self, keep: Any) -> Tensor:
        return torch.cat([torch.from_numpy(np.array(keep[g.id], dtype=bool)) for g in self.groups])


ENTRY = Gator
