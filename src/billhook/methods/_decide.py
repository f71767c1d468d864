"""From scores to a plan: budget, rounding and, for latency bounds, measured artefacts."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from torch import Tensor

from billhook.allocate.allocator import Allocator
from billhook.allocate.budget import Budget
from billhook.allocate.latency import LatencySample
from billhook.allocate.path import KEYS, Keeps
from billhook.allocate.solve import MeasureLatency, solve
from billhook.graph import Graph, Plan, make_plan
from billhook.graph.branches import Branch
from billhook.graph.plan import Keep
from billhook.measure.backend import channels_that_fit
from billhook.methods._base import Problem
from billhook.units import format_count, format_seconds

log = logging.getLogger("billhook")


def decide(
    problem: Problem,
    scores: Mapping[str, Tensor],
    allocator: Allocator,
    *,
    dropped: Set[str] = frozenset(),
    gone: Mapping[str, Tensor] | None = None,
    branches: Sequence[Branch] = (),
) -> Plan:
    """Return the plan that keeps the best units of every group and meets the problem's budget.

    Args:
        problem: Budget, scope, rounding and backend.
        scores: Per group in scope, one score per unit; higher = keep.
        allocator: How width is shared out between groups.
        dropped: Groups inside residual branches that are gone altogether.
        gone: Per group, units ([size], True = has left) that are not to come back.
        branches: Residual branches that an allocator may empty, as far as they are in scope. A method that
            needs a unit of every group to the end gives none.
    Raises:
        BudgetError: if no allowed widths meet the budget; names the reachable bound.
    """
    timed = "latency" in problem.budget.bounds
    with timing(problem) if timed else nullcontext() as latency:
        allocation = solve(
            problem.groups,
            _arrays(scores),
            allocator,
            problem.graph.costs,
            problem.budget,
            fits=channels_that_fit(problem.backend, problem.round_to),
            latency=latency,
            dropped=dropped,
            gone=_masks(gone),
            branches=branches,
        )
    return make_plan(
        problem.graph,
        allocation.keep,
        original=dict(allocation.original),
        reached=dict(allocation.reached),
        measured=allocation.measured,
        **({"overhead": allocation.overhead} if allocation.overhead else {}),
    )


def formula_limits(problem: Problem, plan: Plan) -> dict[str, float]:
    """Return the budget as bounds on MACs, parameters and size alone, in base units.

    A method that decides again and again while it trains cannot measure each time. A latency bound is
    measured once, with the present scores, and stands from then on as the MACs of the network that met it.

    Args:
        problem: What shall shrink.
        plan: What `decide` returned with the present scores.
    """
    limits = {
        metric: bound.absolute(plan.made_by["original"][metric])
        for metric, bound in problem.budget.bounds.items()
        if metric != "latency"
    }
    if "latency" in problem.budget.bounds:
        macs = float(problem.graph.costs.cost(plan).macs)
        limits["macs"] = min(macs, limits.get("macs", macs))
    return limits


def full_costs(graph: Graph) -> dict[str, float]:
    """Return what the whole network costs, by metric of a budget, in base units; latency is not known."""
    whole = graph.costs.cost(None).to_dict()
    return {metric: float(whole[key]) for metric, key in KEYS.items()}


def keep_within(
    problem: Problem,
    scores: Mapping[str, Tensor],
    allocator: Allocator,
    limits: Mapping[str, float],
    *,
    progress: float = 1.0,
    gone: Mapping[str, Tensor] | None = None,
    branches: Sequence[Branch] = (),
) -> dict[str, Keep]:
    """Return which units stay part of the way from the full network (`progress` 0) to `limits` (1).

    Args:
        problem: Scope and rounding.
        scores: As in `decide`.
        allocator: As in `decide`.
        limits: As `formula_limits` returns them.
        progress: How far each cost has come down from the original's.
        gone: As in `decide`.
        branches: As in `decide`.
    """
    if progress <= 0:
        return {g.id: np.ones(g.size, dtype=bool) for g in problem.groups}
    full = full_costs(problem.graph)
    bounds = {m: full[m] + min(1.0, progress) * (limit - full[m]) for m, limit in limits.items()}
    allocation = solve(
        problem.groups,
        _arrays(scores),
        allocator,
        problem.graph.costs,
        Budget.from_dict(bounds),
        fits=channels_that_fit(problem.backend, problem.round_to),
        gone=_masks(gone),
        branches=branches,
    )
    return dict(allocation.keep)


def with_units(problem: Problem, plan: Plan, keep: Mapping[str, Keep]) -> Plan:
    """Return `plan` with other units of the same groups: as many, so that its costs and its record hold."""
    for name, units in keep.items():
        assert units.sum() == plan.keep[name].sum(), f"{name}: the number of units has changed"
    return make_plan(problem.graph, keep, **plan.made_by)


def _arrays(scores: Mapping[str, Tensor]) -> dict[str, npt.NDArray[np.float64]]:
    return {name: values.detach().double().cpu().numpy() for name, values in scores.items()}


def _masks(units: Mapping[str, Tensor] | None) -> dict[str, Keep]:
    return {name: mask.cpu().numpy() for name, mask in (units or {}).items()}


@contextmanager
def timing(problem: Problem) -> Iterator[MeasureLatency]:
    """Yield what times a decision beside the original, on the problem's backend."""
    # Only latency bounds need a runtime; everything else works without any installed.
    from billhook.deploy import PlanLatency
    from billhook.measure.rounds import QUICK

    quick = replace(QUICK, threads=problem.threads)
    with PlanLatency(problem.model, problem.example_inputs, backend=problem.backend, timing=quick) as latency:

        def measure(keep: Keeps, sure: bool) -> LatencySample:
            plan = make_plan(problem.graph, keep)
            sample = latency.confirm(plan) if sure else latency(plan)
            log.info(
                "%s MACs: %s, %.0f %% of the original%s",
                format_count(problem.graph.costs.cost(plan).macs),
                format_seconds(sample.candidate),
                100 * sample.candidate / sample.original,
                " (confirmed)" if sure else "",
            )
            return sample

        yield measure
