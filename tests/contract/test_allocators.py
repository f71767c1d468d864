"""What holds for every allocator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import cache

import numpy as np
import pytest

from billhook.allocate import allocators
from billhook.allocate.allocator import Curve, Space
from billhook.allocate.budget import Budget
from billhook.allocate.costs import PlanCosts
from billhook.allocate.solve import Allocation, solve
from billhook.errors import BudgetError, InputError
from billhook.graph import Graph, capture
from billhook.options import configure
from tests.contract.wrong_values import wrong_values
from tests.networks import NETWORKS, build

AMOUNTS = np.linspace(0, 1, 101)
SIZES = (1, 7, 64, 20)

every_allocator = pytest.mark.parametrize("name", allocators.names())


@cache
def _graph(network: str) -> Graph:
    return capture(*build(network))


def _scores(kind: str) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    draw = {
        "uniform": lambda n: rng.random(n),
        "heavy tails": lambda n: rng.lognormal(0, 3, n),
        "all equal": np.ones,
        "all zero": np.zeros,
        "tiny": lambda n: rng.random(n) * 1e-30,
        "negative": lambda n: rng.normal(size=n),
    }
    return [draw[kind](n) for n in SIZES]


every_kind_of_scores = pytest.mark.parametrize(
    "kind", ["uniform", "heavy tails", "all equal", "all zero", "tiny", "negative"]
)


class _Costs:
    """Layers one after the other; two of them lie in a branch."""

    group_ids = tuple("abcd")
    sizes = np.array(SIZES)

    def evaluate(self, counts: np.ndarray, *, metrics: Sequence[str]) -> dict[str, np.ndarray]:
        values = {"macs": counts @ np.array([50.0, 10.0, 2.0, 5.0]), "layers": (counts > 0).sum(1) * 1.0}
        return {m: values[m] for m in metrics}


def _space(kind: str) -> Space:
    allowed = [np.array([1]), np.arange(1, 8), np.array([16, 32, 48, 64]), np.arange(1, 21)]
    return Space(_scores(kind), allowed, [(1, 3)], PlanCosts(_Costs(), "abcd"))


def _curve(name: str, space: Space) -> Curve:
    allocator = allocators.get(name)()
    return allocator.curve(space, allocator.work(space))


@every_allocator
@every_kind_of_scores
def test_networks_are_nested_and_made_of_allowed_widths(name: str, kind: str) -> None:
    space = _space(kind)
    counts = _curve(name, space)(AMOUNTS)
    assert counts.shape == (len(AMOUNTS), len(SIZES))
    assert (counts[-1] == SIZES).all()
    assert (np.diff(counts, axis=0) >= 0).all()
    assert ((counts[:, 1] == 0) == (counts[:, 3] == 0)).all(), "a branch leaves as a whole"
    for i, (column, allowed) in enumerate(zip(counts.T, space.allowed, strict=True)):
        assert set(column) <= set(allowed) | ({0} if i in (1, 3) else set())
        assert column[0] in (0, allowed[0])


@every_allocator
@every_kind_of_scores
def test_one_amount_at_a_time_gives_the_same_as_many(name: str, kind: str) -> None:
    curve = _curve(name, _space(kind))
    for amount, row in zip(AMOUNTS[::20], curve(AMOUNTS)[::20], strict=True):
        assert np.array_equal(curve(np.array([amount]))[0], row)


@every_allocator
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("round_to", [1, 4])
def test_budgets_are_met_on_every_network(name: str, network: str, round_to: int) -> None:
    graph, allocator = _graph(network), allocators.get(name)()
    groups = graph.groups.prunable
    rng = np.random.default_rng(0)
    scores = {g.id: rng.random(g.size) for g in groups}

    def meet(budget: Budget) -> Allocation:
        fits = lambda channels: channels % round_to == 0  # noqa: E731
        return solve(groups, scores, allocator, graph.costs, budget, fits=fits, branches=graph.branches)

    made = meet(Budget(macs=0.7, params=0.8))
    assert all(made.reached[m] <= made.limits[m] for m in ("macs", "params"))
    for group in groups:
        kept = int(made.keep[group.id].sum())
        assert kept >= (0 if group.id in graph.branch_of else 1)
        assert kept == group.size or kept * group.width % round_to == 0
    with pytest.raises(BudgetError) as caught:
        meet(Budget(macs=1e-6))
    reachable = caught.value.reachable["macs"]
    assert meet(Budget(macs=reachable / graph.costs.cost().macs)).reached["macs"] == reachable


@every_allocator
def test_wrong_options_are_refused_with_the_valid_range(name: str) -> None:
    kind = allocators.get(name)
    assert all("rule" in f.metadata and f.metadata["help"] for f in fields(kind))
    for option, value, rule in wrong_values(kind):
        with pytest.raises(InputError) as caught:
            configure(kind, {option: value}, what=f"allocator {name!r}")
        assert str(rule) in str(caught.value)
