"""From scores to a plan: budget, rounding and, for latency bounds, measured artefacts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from torch import Tensor

from billhook.allocate.allocator import Allocator
from billhook.allocate.latency import LatencySample
from billhook.allocate.solve import Keeps, MeasureLatency, solve
from billhook.graph import Plan, make_plan
from billhook.measure.backend import backends
from billhook.methods._base import Problem
from billhook.units import format_count, format_seconds

log = logging.getLogger("billhook")


def decide(problem: Problem, scores: Mapping[str, Tensor], allocator: Allocator) -> Plan:
    """Return the plan that keeps the best units of every group and meets the problem's budget.

    Args:
        problem: Budget, scope, rounding and backend.
        scores: Per group in scope, one score per unit; higher = keep.
        allocator: How width is shared out between groups.
    Raises:
        BudgetError: if no allowed widths meet the budget; names the reachable bound.
    """
    with _timing(problem) as latency:
        allocation = solve(
            problem.groups,
            {name: values.double().numpy() for name, values in scores.items()},
            allocator,
            problem.graph.costs,
            problem.budget,
            fits=_fits(problem),
            latency=latency,
        )
    return make_plan(
        problem.graph,
        allocation.keep,
        original=dict(allocation.original),
        reached=dict(allocation.reached),
        measured=allocation.measured,
    )


def _fits(problem: Problem) -> Callable[[int], bool]:
    """Return whether a number of channels is one that a layer may keep."""
    if isinstance(problem.round_to, int):
        explicit = problem.round_to
        return lambda channels: channels % explicit == 0
    return backends.get(problem.backend).rounding.fits


@contextmanager
def _timing(problem: Problem) -> Iterator[MeasureLatency | None]:
    """Yield what times a decision beside the original; None if the budget does not ask for latency."""
    if "latency" not in problem.budget.bounds:
        yield None
        return
    # Only latency bounds need a runtime; everything else works without any installed.
    from billhook.deploy import PlanLatency
    from billhook.measure.rounds import QUICK

    timing = replace(QUICK, threads=problem.threads)
    with PlanLatency(
        problem.model, problem.example_inputs, backend=problem.backend, timing=timing
    ) as latency:

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
