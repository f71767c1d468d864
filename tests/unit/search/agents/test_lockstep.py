from __future__ import annotations

import numpy as np
import pytest

from billhook.allocate.budget import Budget
from billhook.search.agents.environment import SearchEnvironment
from billhook.search.agents.lockstep import Lockstep
from tests.search_candidates import Judged, NoTrialsLeft, mlp_space


def candidates(trials: int = 100) -> Judged:
    space = mlp_space()
    return Judged(space, lambda g: float(space.fractions(g).mean()), Budget(macs=0.5), trials)


def test_episodes_side_by_side_are_evaluated_as_one_batch() -> None:
    judged = candidates()
    env = Lockstep(judged, episodes=4)
    env.reset()
    for _ in range(6):
        env.step(np.random.default_rng(0).random((4, 1)).astype(np.float32))
    assert judged.batches == [4, 4]


def test_each_is_what_a_single_environment_would_be() -> None:
    rng = np.random.default_rng(0)
    actions = rng.random((3, 2, 1)).astype(np.float32)  # steps, episodes
    env = Lockstep(candidates(), "accuracy", episodes=2)
    seen = [env.reset()]
    for action in actions:
        observed, rewards, dones, infos = env.step(action)
        seen.append(observed)
    for i in range(2):
        single = SearchEnvironment(candidates(), "accuracy")
        np.testing.assert_array_equal(single.reset()[0], seen[0][i])
        for step, action in enumerate(actions):
            observed, reward, terminated, _, info = single.step(action[i])
            if not terminated:
                np.testing.assert_array_equal(observed, seen[step + 1][i])
        assert dones[i]
        assert rewards[i] == np.float32(reward)
        np.testing.assert_array_equal(infos[i]["terminal_observation"], observed)
        assert infos[i]["trial"].genes == info["trial"].genes


def test_the_end_of_the_trials_is_passed_on_in_the_middle_of_a_batch() -> None:
    judged = candidates(trials=6)
    env = Lockstep(judged, episodes=4)
    action = np.full((4, 1), 0.5, np.float32)
    for _ in range(5):
        env.step(action)
    with pytest.raises(NoTrialsLeft):
        env.step(action)
    assert len(judged.done) == 6


def test_symmetric_actions_cover_the_same_range() -> None:
    judged = candidates()
    env = Lockstep(judged, episodes=3, symmetric=True)
    assert env.action_space.low.item() == -1
    env.step(np.array([[-1.0], [0.0], [1.0]], dtype=np.float32))
    assert judged.space.fractions(env.walk.rows)[:, 0].tolist() == [0.25, 0.5, 1.0]
