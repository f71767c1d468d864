"""`solve`: from scores and a budget to the units that stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from billhook.allocate.allocator import Allocator
from billhook.allocate.budget import Bound, Budget, format_value
from billhook.allocate.costs import Costs, Floats
from billhook.allocate.formula import Limits, fill, largest_amount, within
from billhook.allocate.latency import LatencySample, search
from billhook.allocate.path import Keeps, Path
from billhook.allocate.rounding import Counts
from billhook.errors import BudgetError, InputError
from billhook.graph.branches import Branch
from billhook.graph.branches import gone as gone_branches
from billhook.graph.groups import ChannelGroup

MeasureLatency = Callable[[Keeps, bool], LatencySample]

_RUNGS = 513  # widths a latency search chooses from; neighbours differ by less than timing can tell


@dataclass(frozen=True)
class Allocation:
    """What was decided, and how close it comes to the budget.

    Attributes:
        keep: Per group id, which units stay.
        original: Cost of the full network, per metric of the budget, in base units.
        reached: The same, of the decision.
        limits: The bounds in base units.
        measured: How many networks a latency bound took to measure.
        overhead: MACs that a layer was taken to cost beside its own.
    """

    keep: Keeps
    original: Mapping[str, float]
    reached: Mapping[str, float]
    limits: Mapping[str, float]
    measured: int = 0
    overhead: float = 0.0


def solve(
    groups: Sequence[ChannelGroup],
    scores: Mapping[str, Floats],
    allocator: Allocator,
    costs: Costs,
    budget: Budget,
    *,
    fits: Callable[[int], bool],
    latency: MeasureLatency | None = None,
    dropped: Set[str] = frozenset(),
    gone: Keeps | None = None,
    branches: Sequence[Branch] = (),
) -> Allocation:
    """Return the widest network on the allocator's path that meets `budget`.

    Bounds on MACs, parameters and size are never exceeded; single groups are grown a little further than the
    allocator says where rounding leaves room. A latency bound is met by measuring at most eight networks.

    Args:
        groups: Groups that may shrink; all others keep their size.
        scores: Per group id, one score per unit; higher = keep.
        allocator: How width is shared out.
        costs: Cost formulas of the network.
        budget: Bounds that must all hold.
        fits: Whether a number of channels is one the runtime likes. A group keeps such a number, or all.
        latency: Times a network in turns with the original; thoroughly, if its second argument is True.
            Needed for a latency bound only.
        dropped: Ids of groups of which nothing stays, because a method has decided that their residual
            branches go; all groups of such a branch. They take no part in the sharing out.
        gone: Per group id, units that have left already and are not to come back; see `Path`.
        branches: Residual branches that the allocator may empty, if all their groups are among `groups`.
    Raises:
        BudgetError: if even the smallest allowed widths miss a bound; `reachable` holds what they reach.
        InputError: for a latency bound without `latency`, or if `dropped` names a group that cannot shrink.
    """
    if unknown := sorted(dropped - set(costs.group_ids)):
        raise InputError(f"dropped={unknown}: no such groups among those that may shrink")
    bounds = dict(budget.bounds)
    timed = bounds.pop("latency", None)
    if timed is not None and latency is None:
        raise InputError("a latency bound needs a backend that can time networks")
    measured = None if timed is None or latency is None else _Stopwatch(latency)
    dropped = dropped | _left_before(branches, gone or {})
    shared = [g for g in groups if g.id not in dropped]
    path = Path(
        shared,
        [scores[g.id] for g in shared],
        allocator,
        costs,
        fits,
        sorted(dropped),
        gone,
        _leaving(branches, [g.id for g in groups], dropped),
        None if measured is None else measured.relative,
    )
    original = path.original(tuple(bounds))
    # A fraction that was computed from a cost must lead back to that cost, whatever the last digit.
    limits = {m: b.absolute(original[m]) * (1 + 1e-12 * b.relative) for m, b in bounds.items()}
    _check_reachable(path, bounds, original, limits)
    counts = fill(path, largest_amount(path, limits), limits)
    if timed is None or measured is None:
        reached = _reached(path, counts, limits)
        return Allocation(path.keep(counts), original, reached, limits, overhead=path.overhead)
    return _solve_latency(path, counts, Allocation({}, original, {}, limits), timed, measured)


class _Stopwatch:
    """Times plans and counts the different networks among them, those of the allocator and of the search."""

    def __init__(self, measure: MeasureLatency) -> None:
        self._measure = measure
        self._seen: set[tuple[int, ...]] = set()

    def __call__(self, keep: Keeps, sure: bool) -> LatencySample:
        self._seen.add(tuple(int(k.sum()) for k in keep.values()))
        return self._measure(keep, sure)

    def relative(self, keep: Keeps) -> float:
        """Return the time of a quick measurement relative to the original network's."""
        sample = self(keep, False)
        return sample.candidate / sample.original

    @property
    def networks(self) -> int:
        """How many different networks were timed."""
        return len(self._seen)


def _left_before(branches: Sequence[Branch], absent: Keeps) -> Set[str]:
    """Return the groups of branches of which nothing is left."""
    left = gone_branches(branches, {name: ~units for name, units in absent.items()})
    return {group for branch in left for group in branch.groups}


def _leaving(branches: Sequence[Branch], groups: Sequence[str], dropped: Set[str]) -> list[tuple[str, ...]]:
    """Return what is left in each branch that may leave; a branch with groups out of scope must stay."""
    ours = [b for b in branches if set(b.groups) <= set(groups) and dropped.isdisjoint(b.own)]
    return [tuple(g for g in b.groups if g not in dropped) for b in ours]


def _solve_latency(
    path: Path, most: Counts, formulas: Allocation, bound: Bound, measure: _Stopwatch
) -> Allocation:
    """Return the widest rung up to the widths `most` which meets `bound`."""
    rungs = path.counts(np.linspace(0.0, 1.0, _RUNGS))
    rungs = np.concatenate([rungs[(rungs <= most).all(axis=1)], most[None]])
    work, first = np.unique(path.work(rungs), return_index=True)
    rungs = rungs[first]

    state = search(work, lambda rung, sure: measure(path.keep(rungs[rung]), sure), bound)
    rung = state.best()
    if rung is None:
        fastest = state.samples[0]
        raise _unreachable("latency", bound, fastest.original, {"latency": fastest.candidate})
    sample = state.samples[rung]
    return Allocation(
        keep=path.keep(rungs[rung]),
        original={**formulas.original, "latency": sample.original},
        reached={**_reached(path, rungs[rung], formulas.limits), "latency": sample.candidate},
        limits={**formulas.limits, "latency": bound.absolute(sample.original)},
        measured=measure.networks,
        overhead=path.overhead,
    )


def _reached(path: Path, counts: Counts, limits: Limits) -> dict[str, float]:
    return {m: float(v[0]) for m, v in path.cost(counts[None], tuple(limits)).items()}


def _check_reachable(
    path: Path, bounds: Mapping[str, Bound], original: Mapping[str, float], limits: Limits
) -> None:
    smallest = path.counts(0.0)
    if within(path, smallest, limits)[0]:
        return
    reachable = _reached(path, smallest[0], limits)
    missed = [m for m in bounds if reachable[m] > limits[m]]
    raise _unreachable(
        missed[0], bounds[missed[0]], original[missed[0]], reachable, empty=not (path.groups or path.dropped)
    )


def _unreachable(
    metric: str, bound: Bound, original: float, reachable: Mapping[str, float], *, empty: bool = False
) -> BudgetError:
    def show(value: float) -> str:
        return f"{format_value(metric, value)} ({value / original:.1%} of the original)"

    why = "no group may be pruned, which leaves" if empty else "the smallest allowed widths reach"
    return BudgetError(
        f"budget {metric} ≤ {show(bound.absolute(original))} cannot be met: {why} {show(reachable[metric])}. "
        "Raise the bound, widen the scope, lower round_to, or allow pruning through mixing operators "
        "(mixing='allow')",
        dict(reachable),
    )
