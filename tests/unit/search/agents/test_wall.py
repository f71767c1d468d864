"""No candidate is ever beyond the budget, and none is kept from what fits."""

from __future__ import annotations

import numpy as np
import pytest

from billhook.allocate.budget import Budget
from billhook.search.agents.walk import Walk
from billhook.search.agents.wall import behind_wall
from billhook.search.costs import SearchCosts
from billhook.search.space import Floats, Genes, Space
from tests.search_candidates import Judged, mlp_space

EPISODES = 300


class Staircase:
    """A latency that goes up in steps, as measured ones do."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def of(self, rows: Genes) -> Floats:
        """Return the seconds."""
        found: Floats = 1e-3 * (1 + np.ceil(self._space.values(rows) / 7) @ np.arange(1, 4))
        return found

    @property
    def original(self) -> float:
        """The seconds of the whole network."""
        return float(self.of(self._space.highest)[0])


@pytest.mark.parametrize(
    "budget",
    [
        Budget(macs=0.5),
        Budget(macs=0.2),
        Budget(params=0.3),
        Budget(size=0.4),
        Budget(latency=0.5),
        Budget(macs=0.6, params=0.35, latency=0.7),
    ],
    ids=lambda b: "+".join(b.bounds),
)
def test_random_actions_never_end_beyond_the_budget(budget: Budget) -> None:
    space = mlp_space((48, 32, 40), parts=16)
    candidates = Judged(space, lambda g: 0.0, budget, latency=Staircase(space))
    walk, rng = Walk(candidates, EPISODES), np.random.default_rng(0)
    while not walk.done:
        walk.step(rng.random(EPISODES))
    found = candidates.costs.of(walk.rows)
    for metric, limit in candidates.costs.limits.items():
        assert found[metric].max() <= limit
    worst = max(found[m].max() / limit for m, limit in candidates.costs.limits.items())
    assert worst > 0.9  # the wall is not somewhere else


def test_what_is_asked_for_is_given_if_it_fits() -> None:
    space = mlp_space(parts=8)
    costs = SearchCosts(space, Budget(macs=0.4))
    rng = np.random.default_rng(1)
    for _ in range(50):
        row = costs.fitted(space.random(rng, 1)[0], rng)
        walk = Walk(Judged(space, lambda g: 0.0, Budget(macs=0.4)))
        for fraction in space.fractions(row)[0]:
            walk.step([fraction])
        assert walk.rows[0].tolist() == row.tolist()


def test_the_wall_gives_the_largest_value_that_fits() -> None:
    space = mlp_space(parts=16)
    costs = SearchCosts(space, Budget(macs=0.3))
    rng = np.random.default_rng(2)
    walk = Walk(Judged(space, lambda g: 0.0, Budget(macs=0.3)), 20)
    walk.step(rng.random(20))
    rows = walk.rows
    got = behind_wall(costs, rows, 1, np.full(20, 15))
    for row, value in zip(rows, got, strict=True):
        every = np.tile(row, (16, 1))
        every[:, 1] = np.arange(16)
        assert value == np.flatnonzero(costs.within(every)).max()


def test_everything_may_stay_without_a_budget() -> None:
    space = mlp_space()
    walk = Walk(Judged(space, lambda g: 0.0), 2)
    while not walk.done:
        walk.step([1.0, 0.0])
    assert walk.rows.tolist() == [space.highest.tolist(), space.lowest.tolist()]


def test_a_budget_at_the_floor_leaves_only_the_smallest_candidate() -> None:
    space = mlp_space()
    floor = SearchCosts(space).of(space.lowest, ["macs"])["macs"][0]
    walk = Walk(Judged(space, lambda g: 0.0, Budget(macs=floor)))
    while not walk.done:
        walk.step([1.0])
    assert walk.rows[0].tolist() == space.lowest.tolist()
