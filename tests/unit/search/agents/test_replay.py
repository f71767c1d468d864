from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from billhook.search.agents.replay import EpisodeReplay


def replay(size: int = 100, **options: Any) -> EpisodeReplay:
    return EpisodeReplay(
        size, spaces.Box(0, 1, (2,), np.float32), spaces.Box(0, 1, (1,), np.float32), "cpu", **options
    )


def play(buffer: EpisodeReplay, rewards: list[float], steps: int = 3, *, marks: list[float]) -> None:
    """Add episodes side by side, recognisable by their marks."""
    for step in range(steps):
        end = step == steps - 1
        seen = np.array([[mark, step / 10] for mark in marks], dtype=np.float32)
        then = np.array([[mark, (step + 1) / 10] for mark in marks], dtype=np.float32)
        action = np.array([[mark] for mark in marks], dtype=np.float32)
        reward = np.array(rewards if end else [0.0] * len(marks), dtype=np.float32)
        buffer.add(seen, then, action, reward, np.full(len(marks), end), [{} for _ in marks])


def test_an_episode_is_taken_in_when_it_ends() -> None:
    buffer = replay()
    seen, done = np.zeros((1, 2), np.float32), np.array([False])
    buffer.add(seen, seen, np.zeros((1, 1), np.float32), np.zeros(1), done, [{}])
    assert buffer.size() == 0
    buffer.add(seen, seen, np.zeros((1, 1), np.float32), np.ones(1), ~done, [{}])
    assert buffer.size() == 2


def test_every_step_gets_the_reward_of_the_end_of_its_own_episode() -> None:
    buffer = replay(baseline=0.0, n_envs=2)
    play(buffer, [5.0, 7.0], marks=[0.1, 0.9])
    drawn = buffer.sample(200)
    wanted = np.where(drawn.observations[:, :1].numpy() < 0.5, 5.0, 7.0)
    np.testing.assert_array_equal(drawn.rewards.numpy(), wanted)


def test_only_the_last_step_is_done() -> None:
    buffer = replay()
    play(buffer, [1.0], marks=[0.5])
    drawn = buffer.sample(100)
    last = drawn.observations[:, 1:].numpy() > 0.15
    np.testing.assert_array_equal(drawn.dones.numpy(), last.astype(np.float32))
    np.testing.assert_allclose(drawn.next_observations[:, 1], drawn.observations[:, 1] + 0.1, atol=1e-6)


def test_the_oldest_transitions_go_first() -> None:
    buffer = replay(size=4)
    play(buffer, [1.0], marks=[0.2])
    play(buffer, [1.0], marks=[0.8])
    assert buffer.size() == 4
    marks = np.sort(buffer.observations[:, 0, 0])
    np.testing.assert_allclose(marks, [0.2, 0.8, 0.8, 0.8])


def test_rewards_are_relative_to_the_moving_average_of_batches() -> None:
    buffer = replay(baseline=0.5)
    play(buffer, [4.0], marks=[0.5])
    assert buffer.sample(8).rewards.abs().max() == 0  # the first average is that of the batch itself
    for _ in range(40):
        play(buffer, [8.0], marks=[0.5])
    means = [buffer.mean]
    for _ in range(3):
        before = buffer.mean
        drawn = buffer.sample(64)
        raw = drawn.rewards.mean().item() + (buffer.mean or 0)
        assert buffer.mean == pytest.approx(before + 0.5 * (raw - before), abs=1e-4)
        means.append(buffer.mean)
    assert means[-1] > 7


def test_draws_follow_from_the_seed_and_leave_numpy_alone() -> None:
    drawn = []
    state = np.random.get_state()[1].copy()
    for seed in (3, 3, 4):
        buffer = replay(seed=seed)
        for mark in (0.1, 0.4, 0.7):
            play(buffer, [mark], marks=[mark])
        drawn.append(buffer.sample(32).actions.numpy().ravel().tolist())
    assert drawn[0] == drawn[1] != drawn[2]
    np.testing.assert_array_equal(np.random.get_state()[1], state)
