from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_for_agents

from billhook.allocate.budget import Budget
from billhook.errors import InputError
from billhook.search.agents.environment import SearchEnvironment
from tests.search_candidates import Judged, mlp_space


def candidates(accuracy: float = 0.5) -> Judged:
    return Judged(mlp_space(), lambda g: accuracy, Budget(macs=0.5))


def test_the_checkers_of_gymnasium_and_of_the_agents_are_content() -> None:
    environment = SearchEnvironment(candidates())
    check_env(environment, skip_render_check=True)
    check_for_agents(environment, warn=False)  # it would rather have actions from -1 to 1


def test_an_episode_is_evaluated_once_with_its_last_step() -> None:
    judged = candidates(0.5)
    environment = SearchEnvironment(judged, "accuracy")
    environment.reset()
    action = np.array([0.5], dtype=np.float32)
    for _ in range(2):
        _, reward, terminated, truncated, info = environment.step(action)
        assert (reward, terminated, truncated, info) == (0.0, False, False, {})
    _, reward, terminated, truncated, info = environment.step(action)
    assert (reward, terminated, truncated) == (0.5, True, False)
    assert info["trial"] is judged.done[0]
    assert judged.batches == [1]


def test_an_accuracy_that_is_no_number_is_an_error() -> None:
    environment = SearchEnvironment(candidates(np.nan))
    environment.reset()
    action = np.array([0.5], dtype=np.float32)
    environment.step(action)
    environment.step(action)
    with pytest.raises(InputError, match="reward 'error' of trial 0 is nan"):
        environment.step(action)
