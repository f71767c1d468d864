from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import truncnorm

from billhook.search.agents.exploration import Exploration, truncated_normal


@pytest.mark.parametrize("mean", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("sigma", [0.5, 0.05])
def test_quantiles_are_those_of_the_normal_distribution_cut_off_at_0_and_1(mean: float, sigma: float) -> None:
    quantiles = np.linspace(0.01, 0.99, 25)
    found = truncated_normal(np.full(25, mean), np.full(25, sigma), quantiles)
    expected = truncnorm.ppf(quantiles, -mean / sigma, (1 - mean) / sigma, loc=mean, scale=sigma)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_without_deviation_the_policy_is_followed() -> None:
    means = np.array([0.0, 0.37, 1.0])
    np.testing.assert_allclose(truncated_normal(means, np.zeros(3), np.full(3, 0.9)), means, atol=1e-9)


def test_the_warm_up_is_uniform_whatever_the_policy_says() -> None:
    rng = np.random.default_rng(0)
    drawn = Exploration(warmup=10).actions(np.zeros(20_000), np.full(20_000, 9), rng)
    counts, _ = np.histogram(drawn, bins=10, range=(0, 1))
    assert counts.min() > 1800
    assert counts.max() < 2200


def test_actions_come_closer_to_the_policy_from_episode_to_episode() -> None:
    rng = np.random.default_rng(0)
    exploration = Exploration(warmup=5, sigma=0.5, decay=0.95)
    early = exploration.actions(np.full(4000, 0.5), np.full(4000, 5), rng)
    late = exploration.actions(np.full(4000, 0.5), np.full(4000, 5 + 40), rng)
    assert late.std() == pytest.approx(0.5 * 0.95**40, rel=0.05)
    assert early.std() > 0.25


def test_episodes_side_by_side_each_have_their_own_deviation() -> None:
    rng = np.random.default_rng(0)
    means, episodes = np.full(2, 0.5), np.array([0, 500])
    drawn = np.stack([Exploration(warmup=0).actions(means, episodes, rng) for _ in range(300)])
    assert drawn[:, 0].std() > 0.2
    assert drawn[:, 1].std() < 1e-6
