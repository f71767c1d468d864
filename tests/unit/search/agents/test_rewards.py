from __future__ import annotations

import math

import pytest

from billhook.errors import InputError
from billhook.search.agents.rewards import CONSTRAINED, REWARDS, reward_of
from billhook.search.studies.trial import Trial


def trial(accuracy: float = 0.75, macs: float = 1e6, params: float = 1e4) -> Trial:
    return Trial(7, (0,), accuracy, 0.5, {"macs": macs, "params": params})


def test_rewards_of_a_case_worked_by_hand() -> None:
    assert reward_of("error", trial()) == -0.25
    assert reward_of("accuracy", trial()) == 0.75
    assert reward_of("error-log-macs", trial()) == pytest.approx(-0.25 * math.log(1e6))
    assert reward_of("error-log-params", trial()) == pytest.approx(-0.25 * math.log(1e4))


@pytest.mark.parametrize("name", REWARDS)
def test_more_accuracy_is_always_better(name: str) -> None:
    assert reward_of(name, trial(0.9)) > reward_of(name, trial(0.8))


@pytest.mark.parametrize("name", [n for n in REWARDS if n not in CONSTRAINED])
def test_rewards_that_know_costs_prefer_the_smaller_network(name: str) -> None:
    assert reward_of(name, trial(macs=1e5, params=1e3)) > reward_of(name, trial())


@pytest.mark.parametrize("accuracy", [math.nan, math.inf])
def test_a_reward_that_is_no_number_names_the_trial(accuracy: float) -> None:
    with pytest.raises(InputError, match=r"'error' of trial 7 is .* cannot learn"):
        reward_of("error", trial(accuracy))
