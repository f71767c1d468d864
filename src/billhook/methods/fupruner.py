"""FuPruner's dynamic filter pruning: the units that leave are chosen anew while the network trains."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from billhook.allocate.allocator import Allocator
from billhook.allocate.rounding import keep_best
from billhook.errors import BudgetError, InputError
from billhook.graph import Plan, make_plan
from billhook.graph.plan import Keep
from billhook.methods._accuracy import accuracy_of, settled_accuracy, too_inaccurate
from billhook.methods._asymptotic import count_at, fraction_at
from billhook.methods._at_most import AtMost
from billhook.methods._base import Outcome, Problem
from billhook.methods._fixed_widths import FixedWidths
from billhook.methods._parts import Allocating, Scoring, scores_of
from billhook.methods._training import MethodCallback, TrainingMethod
from billhook.methods._units import HeldSilence, factor, live_tensors, open_gates_, readers, silence_
from billhook.options import Above, Number, OneOf, OrNone, option
from billhook.registry import Info
from billhook.train import FitConfig, StepContext, as_batches

log = logging.getLogger("billhook")

INFO = Info(
    "FuPruner: dynamic filter pruning",
    "Li et al., TCAD 39(11) 2020, arXiv:2010.16165",
    needs_data=True,
    trains=True,
    notes="reconstructed; any criterion; max_drop=… needs validation data; made for fused networks",
)


def steps_of(interval: float, per_epoch: int) -> int:
    """Return an interval in epochs as a number of steps, at least one."""
    return max(1, round(interval * per_epoch))


@dataclass(frozen=True)
class Fupruner(Allocating, Scoring, TrainingMethod):
    """Every `interval` the least units of each group are silenced; more and more, down to the budget.

    What the source calls the target (rate, FLOPs or latency) is the budget. It fixes the widths before the
    first step; which units make them up is what changes. With dynamic="soft" a silenced unit is trained on
    like all others and may come back at the next selection; with "hard" it has left for good.

    Attributes:
        criterion: The source of the reconstruction has "l2". Scores are compared within a group, and copies
            of channels (`billhook.fuse`) are groups of their own, so ordinary filters never compete with
            copies, whose norm would say nothing.
        allocator: "uniform", because the source prunes every layer at one rate; the budget says which.
        rate: A bound beside the budget: no group loses more than this fraction of its units. None: the
            budget alone decides. If the two cannot both hold, a `BudgetError` says so before anything is
            trained.
        max_drop: The accuracy requirement. When an interval was trained at a new rate, the silenced network
            is judged on `Problem.validation`, with batch-norm statistics measured anew on a copy. If it has
            lost more than this against the network before the first step, the rate goes back to the last one
            that was accepted and freezes there, and training goes on. The budget still holds: when training
            is over, its widths are tried once more, and if the accuracy is still too low, a `BudgetError`
            names the costs that the accepted rate has reached. So what comes back meets the budget and the
            requirement, or nothing comes back.

    References:
        Li et al., "Fusion-Catalyzed Pruning for Optimizing Deep Learning on Intelligent Edge Devices", IEEE
        TCAD 39(11), 2020. arXiv:2010.16165. The rising rate: `fraction_at`.
    Differs from the source:
        Reconstructed: only the abstract could be read. It speaks of dynamic filter pruning that keeps an
        accuracy requirement, and of options; the loop, its options and their values are read into that.
        Selections are a tenth of an epoch apart, not an epoch, because a short run has few epochs;
        interval=1 is the reconstruction's rhythm. A rising rate is final after half of the run (`until`).
        A rate is judged after the interval that follows its first selection, not at once: straight after a
        jump of the rate hardly any network holds its accuracy.
        A unit is silenced where it is read, not where it is made; see `Soft`. Who reads copies of channels
        has nothing to train (see `billhook.fuse`), so it stays shut until the next selection, which looks
        at all copies anew.
    """

    allocator: str = "uniform"
    dynamic: str = option("soft", OneOf("soft", "hard"), "whether silenced units may come back")
    interval: float = option(0.1, Above(0), "epochs between selections")
    schedule: str = option(
        "asymptotic", OneOf("constant", "asymptotic"), "how the number of silenced units grows"
    )
    until: float = option(0.5, Number(0.01, 1), "part of the run after which the number is the final one")
    rate: float | None = option(None, OrNone(Number(0, 1)), "largest fraction of its units a group loses")
    max_drop: float | None = option(
        None, OrNone(Number(0, 100)), "largest drop of validation accuracy, in percentage points"
    )

    def allocating(self) -> Allocator:
        """Return the allocator, bounded by the rate."""
        chosen = super().allocating()
        return chosen if self.rate is None else AtMost(chosen, self.rate)

    def check(self, problem: Problem) -> None:
        """Raise nothing: the method can judge any network, and data are there later."""

    def callback(self, problem: Problem) -> MethodCallback:
        """Return what selects and silences.

        Raises:
            InputError: if there is a `max_drop`, and nothing to measure it on.
        """
        if self.max_drop is not None and problem.validation is None:
            raise InputError(
                f"max_drop={self.max_drop:g} is judged on held-out data; give validation=, a DataLoader or a "
                "list of (inputs, targets) that is not trained on, or leave max_drop out"
            )
        return FuprunerCallback(self, problem)

    def run(self, problem: Problem) -> Outcome:
        """Train a copy of the model, deciding; raises what `TrainingMethod.run` raises."""
        return super().run(replace(problem, training=problem.training or self.training))  # for the callback


class FuprunerCallback(FixedWidths):
    """Remembers the widths, how far they have been approached, and, if units leave for good, which have.

    A selection is held before the first step of the next interval. In other loops than billhook's the length
    of an epoch is known when the first one is over; selections begin there.
    """

    def __init__(self, method: Fupruner, problem: Problem) -> None:
        super().__init__(problem, method.allocating())
        self.method, self.criterion = method, method.scoring()
        self.branches = problem.graph.branches if method.rate is None else ()  # who leaves whole loses all
        self._silence = HeldSilence(self.groups, self.branches)

    def scores(self, context: StepContext) -> dict[str, Tensor]:
        """Return the criterion's scores."""
        return scores_of(self.problem, context.model, self.criterion)

    def begin(self, context: StepContext) -> None:
        """Decide the widths, and measure the accuracy to start from."""
        try:
            super().begin(context)
        except BudgetError as e:
            if self.method.rate is None:
                raise
            rate = (
                f"rate={self.method.rate:g} lets no group lose more than {self.method.rate:.0%} of its units"
            )
            raise BudgetError(f"{rate}. Raise rate, or: {e}", e.reachable) from e
        whole = {g.id: torch.zeros(g.size, dtype=torch.bool) for g in self.groups}
        self.memory |= {
            "per_epoch": _steps_per_epoch(self.problem, context.total_steps),
            "tried": 0.0,  # how many of the units that have to leave are silent, as a fraction
            "accepted": 0.0,  # the same, when the accuracy was last found to hold
            "frozen": False,
            "gone": whole,  # for good, if dynamic="hard"
            "gone_accepted": whole,
            "spare": {},  # what was read of them before the present rate was tried
            "empty": {},  # the same, of groups whose residual branches leave
        }
        if self.method.max_drop is not None:
            self.memory["accuracy"] = accuracy_of(self.problem, context.model)

    def before_step(self, context: StepContext) -> None:
        """Select when an interval is over."""
        super().before_step(context)
        per_epoch = self.memory["per_epoch"]
        if context.step == 0 or not per_epoch or context.step % steps_of(self.method.interval, per_epoch):
            return
        memory, strict = self.memory, self.method.max_drop is not None
        if not memory["frozen"] and not self._held(context):
            self._freeze(context)
        if not memory["frozen"]:
            done = context.step / context.total_steps / self.method.until
            memory["accepted"], memory["gone_accepted"] = memory["tried"], memory["gone"]
            memory["tried"] = fraction_at(done, self.method.schedule)
            if strict:
                memory["spare"] = self._weights(context)
        self._select(context, memory["tried"])

    def after_step(self, context: StepContext) -> None:
        """Keep silent what has left for good."""
        gone = self.memory["gone" if self.method.dynamic == "hard" else "empty"]
        if gone:
            self._silence.hold_(context.model, gone)

    def after_epoch(self, context: StepContext) -> None:
        """Note how long an epoch is."""
        self.memory["per_epoch"] = self.memory["per_epoch"] or context.step + 1

    def plan(self, context: StepContext) -> Plan:
        """Select for the last time, and return the plan that removes what is silent.

        Raises:
            BudgetError: if the widths that the budget needs cost more accuracy than `max_drop`.
        """
        keep = self._select(context, 1.0)
        plan = self.plan_with(keep)
        if self.method.max_drop is None:
            return plan
        accuracy = settled_accuracy(self.problem, context.model)
        if self._too_low(accuracy):
            raise self._out_of_reach(accuracy)
        return plan.with_made_by(accuracy={"before": self.memory["accuracy"], "after": accuracy})

    def _held(self, context: StepContext) -> bool:
        """Return whether the accuracy holds now that an interval was trained at the present rate."""
        if self.method.max_drop is None or self.memory["tried"] == self.memory["accepted"]:
            return True
        before, tensors = self._weights(context), live_tensors(context.model)
        self._select(context, self.memory["tried"])
        held = not self._too_low(settled_accuracy(self.problem, context.model))
        for name, weight in before.items():  # the next selection is to see what training has made of them
            tensors[name].copy_(weight)
        return held

    def _freeze(self, context: StepContext) -> None:
        """Go back to the accepted rate, for the rest of training."""
        memory, tensors = self.memory, live_tensors(context.model)
        log.warning(
            "max_drop=%g is exceeded at step %d with %.0f %% of the units that have to leave; the rate "
            "freezes at %.0f %%",
            self.method.max_drop,
            context.step,
            100 * memory["tried"],
            100 * memory["accepted"],
        )
        if self.method.dynamic == "hard":
            for group in self.groups:
                back = memory["gone"][group.id] & ~memory["gone_accepted"][group.id]
                for m in readers(group, tensors):
                    spare = memory["spare"][m.tensor].to(tensors[m.tensor])
                    tensors[m.tensor].add_(spare * factor(back, m, spare, fill=0.0))
        for name in self._vanishing() if memory["empty"] else ():
            tensors[name].copy_(memory["spare"][name])
        memory |= {"tried": memory["accepted"], "gone": memory["gone_accepted"]}
        memory |= {"frozen": True, "empty": {}, "spare": {}}

    def _select(self, context: StepContext, fraction: float) -> dict[str, Keep]:
        """Silence all units but the best; return which these are."""
        counts, tensors = self._counts(fraction), live_tensors(context.model)
        if self.method.dynamic == "soft":
            open_gates_(context.model, self.groups)
        keep = {}
        for name, values in self.scores(context).items():
            ranks = values.double().numpy()
            if self.method.dynamic == "hard":
                ranks = np.where(self.memory["gone"][name].numpy(), -np.inf, ranks)
            keep[name] = keep_best(ranks, counts[name])
        silence_(tensors, self.groups, keep)
        self.memory["empty"] = {
            name: torch.ones(len(stays), dtype=torch.bool) for name, stays in keep.items() if not stays.any()
        }
        if self.method.dynamic == "hard":
            self.memory["gone"] = {name: torch.from_numpy(~stays) for name, stays in keep.items()}
        self.after_step(context)
        return keep

    def _counts(self, fraction: float) -> dict[str, int]:
        final = self.decided.counts
        return {g.id: count_at(g.size, final[g.id], fraction) for g in self.groups}

    def _weights(self, context: StepContext) -> dict[str, Tensor]:
        """Return a copy of what silencing changes."""
        tensors = live_tensors(context.model)
        names = {m.tensor for g in self.groups for m in readers(g, tensors)}
        return {name: tensors[name].clone() for name in names | self._vanishing()}

    def _vanishing(self) -> frozenset[str]:
        """Return the tensors of the branches that leave whole."""
        counts = self.decided.counts
        gone = (b.tensors for b in self.branches if any(counts.get(g) == 0 for g in b.own))
        return frozenset[str]().union(*gone)

    def _too_low(self, accuracy: float) -> bool:
        return accuracy < self._least - 1e-9  # a drop of exactly max_drop is allowed, whatever the last digit

    @property
    def _least(self) -> float:
        """The lowest accuracy that `max_drop` allows."""
        least: float = self.memory["accuracy"] - (self.method.max_drop or 0) / 100
        return least

    def _out_of_reach(self, accuracy: float) -> BudgetError:
        graph, counts = self.problem.graph, self._counts(self.memory["accepted"])
        held = make_plan(graph, {g.id: np.arange(g.size) < counts[g.id] for g in self.groups})
        return too_inaccurate(self.problem, held, accuracy, self._least)


def _steps_per_epoch(problem: Problem, total: int) -> int:
    """Return the steps of an epoch, 0 if nobody knows: a loop of somebody's own says so when one is over."""
    config: FitConfig | None = problem.training
    if config is None:
        return 0
    if config.steps is None:
        return max(1, total // config.epochs)
    return max(1, len(as_batches(problem.data)) // config.devices)


ENTRY = Fupruner
