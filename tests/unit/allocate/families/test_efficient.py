from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from billhook import apply, verify
from billhook.allocate.budget import Budget
from billhook.allocate.costs import Work
from billhook.allocate.families.efficient import Efficient
from billhook.allocate.solve import Allocation, solve
from billhook.errors import BudgetError
from billhook.graph import Graph, capture, make_plan
from billhook.graph.branches import Branch
from billhook.graph.scope import Scope
from billhook.models import build
from tests.residual import RESIDUAL, residual, residual_graph
from tests.unit.allocate.blocks import blocks, drawn
from tests.unit.allocate.test_latency import Sample

FREE = Efficient(normalize="none", overhead=0.0)


def _scores(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {g.id: rng.random(g.size) for g in graph.groups.prunable}


def _solve(
    graph: Graph, allocator: Efficient, budget: Budget, scores: Mapping[str, np.ndarray], **more: object
) -> Allocation:
    given = {
        "groups": graph.groups.prunable,
        "fits": lambda channels: True,
        "branches": graph.branches,
        **more,
    }
    return solve(scores=scores, allocator=allocator, costs=graph.costs, budget=budget, **given)  # type: ignore[arg-type]


def _without(graph: Graph, *branches: Branch) -> Budget:
    """Return what the network takes that has lost these branches alone."""
    sizes = {g.id: g.size for g in graph.groups}
    plan = make_plan(graph, {g: np.zeros(sizes[g], dtype=bool) for b in branches for g in b.groups})
    return Budget(macs=float(graph.costs.cost(plan).macs))


def _least(graph: Graph, allocator: Efficient) -> float:
    """Return the MACs that an error names as reachable."""
    with pytest.raises(BudgetError) as caught:
        _solve(graph, allocator, Budget(macs=1e-6), _scores(graph))
    return caught.value.reachable["macs"]


def _empty(made: Allocation) -> set[str]:
    return {name for name, units in made.keep.items() if not units.any()}


@pytest.mark.parametrize("network", RESIDUAL)
@pytest.mark.parametrize("fraction", [0.7, 0.4, 0.1])
@pytest.mark.parametrize("allocator", [Efficient(), Efficient(overhead=3000), FREE])
def test_bounds_are_never_exceeded_and_groups_leave_only_with_their_branch(
    network: str, fraction: float, allocator: Efficient
) -> None:
    graph, full = residual_graph(network), residual_graph(network).costs.cost()
    least = _least(graph, allocator)
    budget = Budget(macs=least + fraction * (full.macs - least), params=float(full.params - 1))
    made = _solve(graph, allocator, budget, _scores(graph))
    assert all(made.reached[m] <= made.limits[m] for m in made.limits)
    empty = _empty(made)
    left = [b for b in graph.branches if empty.intersection(b.own)]
    assert empty == {g for b in left for g in b.groups}
    plan = make_plan(graph, made.keep)
    assert graph.costs.cost(plan).macs == made.reached["macs"]


@pytest.mark.parametrize("network", ["basic", "bottleneck", "pre-activation", "resnet-20"])
def test_removal_equals_silence_without_branches(network: str) -> None:
    model, x = residual(network)
    graph = residual_graph(network)
    made = _solve(graph, Efficient(overhead=1e6), Budget(macs=0.6), _scores(graph))
    plan = make_plan(graph, made.keep)
    assert graph.dropped(plan)
    verify(model, plan, x)
    with torch.no_grad():
        assert apply(model, plan)(x).isfinite().all()


def test_a_branch_with_tiny_scores_leaves() -> None:
    graph = residual_graph("basic")
    idle = graph.branches[1]
    scores = _scores(graph)
    scores |= {name: 1e-9 * scores[name] for name in idle.groups}
    made = _solve(graph, FREE, _without(graph, idle), scores)
    assert _empty(made) == set(idle.groups)
    assert all(made.keep[g.id].all() for g in graph.groups.prunable if g.id not in idle.groups)


def test_no_branch_leaves_unless_it_may() -> None:
    graph = residual_graph("basic")
    scores = {name: 1e-9 * s if name in graph.branch_of else s for name, s in _scores(graph).items()}
    stays = Efficient(normalize="none", overhead=1e6, branches=False)
    budget = _without(graph, *graph.branches)
    assert _empty(_solve(graph, stays, budget, scores)) == set()
    assert _empty(_solve(graph, FREE, budget, scores, branches=())) == set()
    assert _empty(_solve(graph, FREE, budget, scores)) == set(graph.branch_of)


def test_a_branch_with_groups_out_of_scope_stays() -> None:
    graph = residual_graph("bottleneck")
    first, second = graph.branches[0], graph.branches[1]
    scope = Scope(exclude=(first.own[0],)).select(graph.groups)
    assert first.own[0] not in {g.id for g in scope}
    scores = {n: 1e-9 * s if n in first.groups + second.groups else s for n, s in _scores(graph).items()}
    made = _solve(graph, FREE, _without(graph, second), scores, groups=scope)
    assert not _empty(made).intersection(first.groups)
    tighter = _solve(graph, FREE, Budget(macs=0.4), scores, groups=scope)
    assert _empty(tighter) >= set(second.groups)
    assert not _empty(tighter).intersection(first.groups)


def test_a_budget_out_of_reach_counts_on_branches_that_may_leave() -> None:
    graph = residual_graph("basic")
    assert _least(graph, Efficient()) < _least(graph, Efficient(branches=False))


def test_a_branch_that_has_left_does_not_come_back() -> None:
    graph = residual_graph("basic")
    left = graph.branches[0]
    gone = {g.id: np.full(g.size, g.id in left.groups) for g in graph.groups.prunable}
    for allocator in (Efficient(), Efficient(branches=False)):
        made = _solve(graph, allocator, Budget(macs=0.9), _scores(graph), gone=gone)
        assert set(left.groups) <= _empty(made)


def test_by_default_the_scale_of_a_groups_scores_does_not_matter() -> None:
    graph, scores = residual_graph("basic"), _scores(residual_graph("basic"))
    scaled = {name: s * 10.0**i for i, (name, s) in enumerate(scores.items())}
    made, other = (_solve(graph, Efficient(), Budget(macs=0.4), s) for s in (scores, scaled))
    assert all(np.array_equal(made.keep[name], other.keep[name]) for name in scores)


def test_of_equal_groups_all_keep_about_as_much() -> None:
    graph = residual_graph("resnet-20")
    made = _solve(
        graph,
        Efficient(),
        Budget(macs=0.5),
        {n: np.linspace(0, 1, len(s)) for n, s in _scores(graph).items()},
    )
    parts = [units.mean() for units in made.keep.values()]
    assert min(parts) > 0.4
    assert max(parts) < 0.9


def test_an_overhead_makes_branches_leave_earlier() -> None:
    graph = residual_graph("resnet-20")
    left = []
    for overhead in (0.0, 1e5, 1e7):
        made = _solve(graph, Efficient(overhead=overhead), Budget(macs=0.5), _scores(graph))
        left.append(len(graph.dropped(make_plan(graph, made.keep))))
    assert left == sorted(left)
    assert left[0] < left[-1]


@pytest.mark.parametrize("per_layer", [0.0, 30.0, 300.0])
def test_the_overhead_is_measured_where_time_is_bound(per_layer: float) -> None:
    space = blocks(drawn(0))
    truth = Work(1.0, per_layer, 50.0)
    original = space.costs.work(np.array([[4, 4, 3, 4]]), truth)
    asked = []

    def seconds(counts: np.ndarray) -> float:
        asked.append(tuple(counts))
        return float((space.costs.work(counts[None], truth) / original)[0])

    assert Efficient().work(space) == Work()
    timed = replace(space, seconds=seconds)
    found = Efficient().work(timed)
    assert found.per_layer / found.per_mac == pytest.approx(per_layer, abs=1e-6)
    assert found.of(space.costs.original(("macs", "layers"))) == pytest.approx(1)
    assert len(asked) == 2
    assert all(asked[0])
    assert not all(asked[1])
    assert Efficient(overhead=7.0).work(timed) == Work(per_layer=7.0)
    assert Efficient().knowing(7.0).work(timed) == Work(per_layer=7.0)
    assert Efficient(overhead=3.0).knowing(7.0) == Efficient(overhead=3.0)
    assert Efficient(branches=False).work(timed) == Work()
    assert len(asked) == 2


def test_a_latency_bound_is_met_with_fewer_layers_where_layers_take_the_time() -> None:
    graph = residual_graph("resnet-20")
    full = graph.costs.evaluate(graph.costs.sizes[None], metrics=("macs", "layers"))
    asked = []

    def measure(keep: Mapping[str, np.ndarray], sure: bool) -> Sample:
        row = graph.costs.counts(make_plan(graph, keep))[None]
        costs = graph.costs.evaluate(row, metrics=("macs", "layers"))
        asked.append(tuple(row[0]))
        macs, layers = (float(costs[m][0] / full[m][0]) for m in ("macs", "layers"))
        return Sample(0.2 * macs + 0.7 * layers + 0.1, 1.0)

    made = _solve(graph, Efficient(), Budget(latency=0.6), _scores(graph), latency=measure)
    assert 0.5 <= made.reached["latency"] <= 0.6
    assert _empty(made)
    assert made.measured == len(set(asked)) <= 5
    with pytest.raises(BudgetError):
        _solve(graph, Efficient(branches=False), Budget(latency=0.6), _scores(graph), latency=measure)


def test_large_networks_take_little_time() -> None:
    graph = capture(build("resnet-56"), torch.randn(1, 3, 32, 32))
    scores = _scores(graph)
    assert len(graph.branches) == 27
    begin = time.process_time()
    _solve(graph, Efficient(overhead=1e5), Budget(macs=0.3), scores)
    assert time.process_time() - begin < 2


def test_auto_depends_on_whether_scores_add_up() -> None:
    automatic, chosen = Efficient(), Efficient(normalize="max", branches=True)
    added, ranked = automatic.judging(additive=True), automatic.judging(additive=False)
    assert (added.normalize, added.branches) == ("none", True)
    assert (ranked.normalize, ranked.branches) == ("cost", False)
    assert chosen.judging(additive=False) == chosen
