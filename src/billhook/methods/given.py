"""A plan that somebody else has made: a search, another run, a person."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

from torch import nn

from billhook.allocate.budget import format_value
from billhook.errors import BudgetError, InputError, PlanError
from billhook.graph import Plan, apply
from billhook.graph.put_back import put_back
from billhook.graph.storage import load_tensors, read_tensors
from billhook.methods._base import Method, Outcome, Problem
from billhook.methods._decide import full_costs
from billhook.methods._fresh import fresh, require_drawable
from billhook.methods._refit import refit_
from billhook.options import Number, OneOf, OrNone, Text, option
from billhook.registry import Info
from billhook.train import as_batches, recalibrate_batchnorm

INFO = Info(
    "keeps what a plan file says",
    notes="with the weights as they are, refitted by least squares (needs data), drawn anew, or from a file",
)


_BLOCKS = 1.01  # a density that was chosen is met in whole blocks, which may be a little more


@dataclass(frozen=True)
class Given(Method):
    """Takes the decision from a file: of a trial of a search, of another run, or written by hand.

    The budget is checked by formula. A bound on latency is not, because the run that the plan is for measures
    what it exports anyway. What a plan says about single weights stays in it.

    Attributes:
        weights: "kept": those of the network. "reconstructed": the layers that read channels which leave are
            refitted by least squares to what they answered before, as AMC exports its policies. "fresh":
            drawn anew for the smaller network, as MetaPruning trains its winners. "file": those of `tensors`,
            with statistics of batch norms measured anew, as MetaPruning judges candidates.
    """

    plan: str | None = option(None, OrNone(Text()), "file of the plan; must be given")
    weights: str = option(
        "kept", OneOf("kept", "reconstructed", "fresh", "file"), "which weights the network gets"
    )
    tensors: str | None = option(
        None, OrNone(Text()), "for 'file': safetensors with the network's state in full size"
    )
    batches: int = option(
        8, Number(1, integer=True), "for 'reconstructed', 'file': this many batches at most"
    )
    positions: int = option(16, Number(1, integer=True), "for 'reconstructed': output positions per image")

    def check(self, problem: Problem) -> None:
        """Raise what is wrong with the file, and where it does not fit the network or the budget.

        Raises:
            PlanError: if there is no plan, it is for another network, or it touches what is out of scope.
            BudgetError: if the plan costs more than the budget allows.
            InputError: if weights are to be refitted or drawn anew, and cannot be, or if their file is not
                named where it has to be.
            StorageError: if the file of weights cannot be read, or does not fit the network.
        """
        self._read(problem)
        self._network(problem)
        if self.weights == "fresh":
            require_drawable(problem.model)

    def run(self, problem: Problem) -> Outcome:
        """Return the plan, and the network with the weights that the option says."""
        plan, model = self._read(problem), self._network(problem)
        if self.weights == "fresh":
            return Outcome(plan, fresh(model, plan, problem.seed))
        if self.weights == "kept":
            return Outcome(plan, model)
        if problem.calibration is None:
            raise InputError(
                f"method 'given' learns from data with weights={self.weights!r}; give data=[(inputs, "
                "targets), …]"
            )
        if self.weights == "file":
            channels = replace(plan, patterns={})
            small = apply(model, channels)
            recalibrate_batchnorm(small, as_batches(problem.data, problem.seed), self.batches)
            return Outcome(plan, put_back(model, channels, small))
        model = copy.deepcopy(model)
        settings = {"batches": self.batches, "positions": self.positions, "seed": problem.seed}
        refit_(model, problem.groups, plan.keep, problem.calibration, **settings)
        return Outcome(plan, model)

    def _network(self, problem: Problem) -> nn.Module:
        """Return the network in full size: the problem's own, or a copy with the tensors of the file."""
        if (self.tensors is not None) != (self.weights == "file"):
            raise InputError("method 'given' takes weights='file' and tensors=FILE together, or neither")
        if self.tensors is None:
            return problem.model
        twin = copy.deepcopy(problem.model)
        load_tensors(twin, read_tensors(self.tensors), self.tensors)
        return twin

    def _read(self, problem: Problem) -> Plan:
        """Return the plan of the file, once it is known to fit; `made_by` says who made it as "given"."""
        if self.plan is None:
            raise InputError("method 'given' carries a plan out: say which, with the option plan=FILE")
        plan = Plan.load(self.plan)
        if plan.mixing != problem.graph.mixing:
            raise PlanError(
                f"{self.plan}: the plan was made with mixing={plan.mixing!r}, the network was looked at with "
                f"mixing={problem.graph.mixing!r}; choose the plan's"
            )
        if plan.fusions and not problem.graph.fusions:
            raise PlanError(f"{self.plan}: the plan is for a network with fusions; fuse it in the same way")
        try:
            problem.graph.keep_list(plan)
        except PlanError as e:
            raise PlanError(f"{self.plan}: {e}") from None
        allowed = {group.id for group in problem.groups}
        for name in plan.removed:
            if name not in allowed:
                raise PlanError(
                    f"{self.plan}: the plan removes units of group {name!r}, which is out of scope"
                )
        _check_budget(problem, plan, self.plan)
        return replace(plan.attached(problem.graph), made_by={"given": dict(plan.made_by)})


def _check_budget(problem: Problem, plan: Plan, file: str) -> None:
    costs, full = problem.graph.costs.cost(plan).bounded(), full_costs(problem.graph)
    slack = _BLOCKS if plan.patterns else 1.0
    limits = {
        metric: slack * bound.absolute(full[metric])
        for metric, bound in problem.budget.bounds.items()
        if metric in full
    }
    missed = {metric: float(costs[metric]) for metric, limit in limits.items() if costs[metric] > limit}
    if missed:
        words = (
            f"{metric} {format_value(metric, value)}, allowed {format_value(metric, limits[metric])}"
            for metric, value in missed.items()
        )
        raise BudgetError(f"the plan in {file} costs more than the budget allows: {'; '.join(words)}", missed)


ENTRY = Given
