"""Evolution finds the one best candidate of 125, keeps the limit, and asks for nobody twice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from billhook.allocate.budget import Budget
from billhook.search.costs import SearchCosts
from billhook.search.hypernet.evolution import Evolution, fittest, scaled_population
from billhook.search.space import Genes, Space
from billhook.search.studies.trial import Trial
from tests.search import problem_of

OPTIONS = (4, 8, 12, 16, 20)


@pytest.fixture(scope="module")
def costs() -> SearchCosts:
    """Three widths of five options each, and a limit of half of the MACs."""
    layers = [nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU()]
    graph = problem_of(nn.Sequential(*layers, nn.Linear(20, 4)), torch.zeros(1, 8)).graph
    channels = {g.id: OPTIONS for g in graph.groups.prunable}
    return SearchCosts(Space(graph, channels, {n: np.arange(20) for n in channels}), Budget(macs=0.5))


@pytest.fixture(scope="module")
def allowed(costs: SearchCosts) -> Genes:
    """All candidates within the limit."""
    rows = np.stack(np.meshgrid(*(range(n) for n in costs.space.sizes), indexing="ij"), -1).reshape(-1, 3)
    assert len(rows) == 125
    return rows[costs.within(rows)]


def _trial(number: int, genes: Genes, accuracy: float, loss: float = 0.0) -> Trial:
    return Trial(number, tuple(int(g) for g in genes), accuracy, loss, {})


def _run(evolution: Evolution, worth: Callable[[Genes], float], generations: int) -> list[Trial]:
    trials: list[Trial] = []
    rows = evolution.first()
    for _ in range(generations):
        if not len(rows):
            break
        trials += [_trial(len(trials) + i, row, worth(row)) for i, row in enumerate(rows)]
        rows = evolution.next(trials)
    return trials


def _worth(seed: int) -> Callable[[Genes], float]:
    """Return a table with one best entry: a random linear preference and some interaction."""
    rng = np.random.default_rng([7, seed])
    gains, noise = rng.uniform(0.5, 1.5, 3), rng.uniform(0, 0.3, (5, 5, 5))
    return lambda row: float(gains @ np.sqrt(row + 1) + noise[tuple(row)])


def _evolution(costs: SearchCosts, seed: int, population: int = 20) -> Evolution:
    return Evolution(costs, population=population, parents=5, probability=0.1, seed=seed)


def test_against_brute_force(costs: SearchCosts, allowed: Genes) -> None:
    found = 0
    for seed in range(10):
        worth = _worth(seed)
        best = max(allowed, key=worth)
        trials = _run(_evolution(costs, seed), worth, 10)
        rows = [t.genes for t in trials]
        assert costs.within(np.array(rows)).all()
        assert len(set(rows)) == len(rows)
        found += tuple(best) in rows
    assert found >= 9


def test_fewer_evaluations_than_brute_force_find_the_best(costs: SearchCosts, allowed: Genes) -> None:
    found = random = 0
    for seed in range(20):
        worth = _worth(seed)
        best = max(map(worth, allowed))
        trials = _run(_evolution(costs, seed, population=6), worth, 5)
        assert len(trials) <= 30 < len(allowed) // 2
        found += max(t.accuracy for t in trials) == best
        drawn = np.random.default_rng(seed).choice(len(allowed), len(trials), replace=False)
        random += max(worth(allowed[i]) for i in drawn) == best
    assert found > 1.5 * random


def test_it_ends_when_there_is_nobody_new(costs: SearchCosts, allowed: Genes) -> None:
    trials = _run(_evolution(costs, 0), _worth(0), 1000)
    assert len(allowed) // 2 < len(trials) <= len(allowed)


def test_the_same_seed_and_results_give_the_same_candidates(costs: SearchCosts) -> None:
    runs = [_run(_evolution(costs, seed), _worth(0), 3) for seed in (1, 1, 2)]
    assert [t.genes for t in runs[0]] == [t.genes for t in runs[1]]
    assert [t.genes for t in runs[0]] != [t.genes for t in runs[2]]


def test_children_come_from_the_best(costs: SearchCosts) -> None:
    evolution = Evolution(costs, population=8, parents=1, probability=0.4, seed=0)
    evolution.first()
    best = _trial(0, np.array([1, 2, 1]), 0.9)
    others = [_trial(i, np.array([0, 0, i % 3]), 0.1) for i in range(1, 4)]
    mutated = evolution.next([*others, best])[:4]
    assert all((row == np.array(best.genes)).any() for row in mutated)


def test_the_fittest_are_the_most_accurate_and_then_those_of_lower_loss() -> None:
    trials = [_trial(0, np.array([0]), 0.5, 1.0), _trial(1, np.array([1]), 0.5, 0.5)]
    trials += [_trial(2, np.array([2]), 0.9, 9.0), _trial(3, np.array([3]), 0.1, 0.0)]
    assert fittest(trials, 3).tolist() == [[2], [1], [0]]


@pytest.mark.parametrize(("trials", "size"), [(1050, 50), (5000, 50), (262, 25), (4, 4), (1, 4)])
def test_generations_shrink_with_the_trials(trials: int, size: int) -> None:
    assert scaled_population(trials) == size
