"""Episodes end where the budget is met, exactly there; one that never does gets the worst reward."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from billhook.allocate.budget import Budget
from billhook.search.costs import SearchCosts
from billhook.search.encoder.policies_episodes import UNMET, PruningEpisodes
from billhook.search.space import Genes
from tests.search_candidates import mlp_space


class Kept:
    """A judge that finds everything 70 % right, and keeps what it was shown."""

    def __init__(self) -> None:
        self.rows: list[Genes] = []

    def __call__(self, rows: Sequence[Genes]) -> list[float]:
        self.rows += rows
        return [0.7] * len(rows)


def episodes(limit: float = 0.5, count: int = 2) -> tuple[PruningEpisodes, Kept, SearchCosts]:
    costs, judge = SearchCosts(mlp_space((16, 16, 16), 8), Budget(macs=limit)), Kept()
    env = PruningEpisodes(costs, judge, count)
    env.reset()
    return env, judge, costs


def test_nothing_taken_for_five_steps_is_unmet_and_costs_no_evaluation() -> None:
    env, judge, _ = episodes()
    results = [env.step(np.full((2, 3), -1.0)) for _ in range(5)]
    assert [r[2].tolist() for r in results] == [[False, False]] * 4 + [[True, True]]
    assert [r[1].tolist() for r in results] == [[0.0, 0.0]] * 4 + [[UNMET, UNMET]]
    assert not judge.rows


def test_everything_taken_ends_at_once_at_the_edge_of_the_budget() -> None:
    env, judge, costs = episodes()
    _, rewards, done, infos = env.step(np.ones((2, 3)))
    assert done.all()
    assert np.allclose(rewards, 0.7 - 1)
    assert costs.within(np.stack(judge.rows)).all()
    assert (costs.relative(np.stack(judge.rows), "macs") > 0.4).all()
    assert (infos[0]["terminal_observation"] < 1).any()


def test_a_negative_action_puts_nothing_back() -> None:
    env, _, _ = episodes(0.05, 1)
    first = env.step(np.zeros((1, 3)))[0]
    assert (env.step(np.full((1, 3), -1.0))[0] <= first).all()


def test_what_is_observed_are_channels_that_exist() -> None:
    env, _, costs = episodes(0.05, 1)
    seen = env.step(np.full((1, 3), -0.63))[0]
    values = costs.space.fractions(costs.space.nearest(seen))
    assert np.allclose(seen, values)
    assert (seen < 1).all()


def test_a_policy_that_never_meets_the_budget_is_made_to_in_the_end() -> None:
    env, judge, costs = episodes(0.5, 1)
    for _ in range(206):
        env.step(np.full((1, 3), -1.0))
    assert judge.rows
    assert costs.within(np.stack(judge.rows)).all()
