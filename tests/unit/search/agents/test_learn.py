"""Agents on problems small enough to know the answer."""

from __future__ import annotations

from contextlib import suppress
from itertools import product

import numpy as np
import pytest
import torch

from billhook.allocate.budget import Budget
from billhook.errors import InputError
from billhook.search.agents.learn import learn
from billhook.search.agents.options import AGENTS, AgentOptions
from billhook.search.agents.walk import Walk
from billhook.search.space import Genes
from tests.search_candidates import Judged, NoTrialsLeft, mlp_space

SPACE = mlp_space()
GRID = np.array(list(product(range(4), repeat=3)))


class Known:
    """A table of all 64 candidates, every layer of which needs its width as much as chance has it."""

    def __init__(self, seed: int, trials: int = 300) -> None:
        rng = np.random.default_rng(seed)
        needs, noise = rng.uniform(0.05, 0.6, 3), rng.normal(0, 0.03, len(GRID))
        losses = np.array([1.0, 0.45, 0.15, 0.0])[GRID] @ needs
        self._table = dict(zip(map(tuple, GRID.tolist()), 1 - losses + noise, strict=True))
        self.judged = Judged(SPACE, self.accuracy, Budget(macs=0.5), trials)
        fitting = GRID[self.judged.costs.within(GRID)]
        self.best = max(self.accuracy(g) for g in fitting)

    def accuracy(self, genes: Genes) -> float:
        return float(self._table[tuple(int(g) for g in genes)])

    @property
    def found(self) -> bool:
        return self.judged.best.accuracy == self.best


def search(known: Known, seed: int, parallel: int = 1, **options: object) -> list[tuple[int, ...]]:
    """Return the candidates that an agent came to."""
    judged = known.judged
    with suppress(NoTrialsLeft):
        chosen = AgentOptions(**options)  # type: ignore[arg-type]
        learn(
            judged, chosen, "error", trials=judged.trials, planned=judged.trials, parallel=parallel, seed=seed
        )
    return [t.genes for t in judged.done]


def at_random(known: Known, seed: int) -> None:
    """The control: the same wall, uniform actions."""
    rng, walk = np.random.default_rng(seed), Walk(known.judged)
    for _ in range(known.judged.trials):
        walk.begin()
        while not walk.done:
            walk.step(rng.random(1))
        known.judged.evaluate(walk.rows)


@pytest.mark.slow
def test_the_best_of_all_candidates_is_found_and_later_ones_are_better_than_random_ones() -> None:
    found, mean, control = 0, [], []
    for seed in range(10):
        known, random = Known(seed, 150), Known(seed, 150)
        search(known, seed, hidden=64, fill=False)  # else all candidates would be tried out
        at_random(random, seed)
        found += known.found
        mean.append(np.mean([t.accuracy for t in known.judged.done[-50:]]))
        control.append(np.mean([t.accuracy for t in random.judged.done[-50:]]))
    assert found >= 8
    assert np.mean(mean) > np.mean(control) + 0.05


@pytest.mark.parametrize("agent", AGENTS)
def test_the_same_seed_gives_the_same_candidates_and_none_beyond_the_budget(agent: str) -> None:
    found = []
    for seed, draws in ((0, 0), (0, 5), (1, 0)):
        torch.manual_seed(draws)  # what others draw does not matter
        torch.rand(draws)
        known = Known(0, trials=24)
        found.append(search(known, seed, parallel=2, agent=agent, hidden=16, warmup=4))
        assert known.judged.costs.within(np.array(found[-1])).all()
        assert known.judged.batches == [2] * 12
    assert found[0] == found[1] != found[2]


def test_candidates_use_the_budget_up_and_new_ones_come_first() -> None:
    known = Known(0, trials=24)
    found = search(known, 0, parallel=2, hidden=16, warmup=4)
    costs = known.judged.costs
    steps = np.eye(len(SPACE.genes), dtype=np.int64)
    full = {
        tuple(row.tolist())
        for row in GRID[costs.within(GRID)]
        if not costs.within((row + steps)[row < SPACE.highest]).any()
    }
    assert set(found) == full, "every candidate that uses the budget up is judged, and no other"


@pytest.mark.parametrize("agent", AGENTS)
def test_others_random_state_and_threads_are_left_alone(agent: str) -> None:
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    search(Known(0, trials=12), 0, agent=agent, hidden=8, warmup=2)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


def test_a_search_that_begins_anew_asks_for_the_same_candidates() -> None:
    whole = search(Known(0, trials=30), 0, hidden=16, warmup=8)
    assert search(Known(0, trials=30), 0, hidden=16, warmup=8) == whole


def test_an_accuracy_that_is_no_number_stops_the_agent() -> None:
    judged = Judged(SPACE, lambda g: np.nan, Budget(macs=0.5))
    with pytest.raises(InputError, match="reward 'error' of trial 0 is nan"):
        learn(judged, AgentOptions(hidden=8), "error", trials=10, planned=10, parallel=1, seed=0)
