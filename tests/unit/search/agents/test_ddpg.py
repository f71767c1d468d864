from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DDPG
from stable_baselines3.common.vec_env import DummyVecEnv

from billhook.search.agents.ddpg import EpisodicDDPG
from billhook.search.agents.exploration import Exploration
from billhook.search.agents.randomness import OwnRandomness
from billhook.search.agents.replay import EpisodeReplay

SEEN = np.full(3, 0.5, np.float32)


class Bandit(gymnasium.Env[Any, Any]):
    """One step; the reward is largest at 0.37."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 1, (3,), np.float32)
        self.action_space = spaces.Box(0, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return SEEN, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return SEEN, -((float(action[0]) - 0.37) ** 2), True, False, {}


def agent(seed: int = 0, warmup: int = 100, **options: Any) -> EpisodicDDPG:
    return EpisodicDDPG(DummyVecEnv([Bandit]), 1, Exploration(warmup), seed=seed, **options)


@pytest.mark.parametrize("seed", range(3))
def test_the_policy_finds_the_best_action_of_a_bandit(seed: int) -> None:
    with OwnRandomness(seed).inside():
        learnt = agent(seed).learn(300, log_interval=None)  # type: ignore[arg-type]
        action, _ = learnt.predict(SEEN[None])
    assert action.item() == pytest.approx(0.37, abs=0.05)


def test_nothing_is_learnt_during_the_warm_up() -> None:
    with OwnRandomness(0).inside():
        learnt = agent(warmup=20)
        before = [p.clone() for p in learnt.policy.parameters()]
        learnt.learn(20, log_interval=None)  # type: ignore[arg-type]
        assert learnt.replay_buffer is not None
        assert learnt.replay_buffer.size() == 20
        after = list(learnt.policy.parameters())
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        learnt.learn(1, log_interval=None, reset_num_timesteps=False)  # type: ignore[arg-type]
        assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_updates_are_those_of_stable_baselines() -> None:
    """Its own code, from the same weights and the same draws, but for the pace of actor and critic."""
    with OwnRandomness(0).inside():
        own = agent(hidden=16, actor_lr=1e-3, critic_lr=1e-3, gamma=0.9, warmup=50)
        other = DDPG(
            *("MlpPolicy", DummyVecEnv([Bandit]), 1e-3),
            tau=0.01,
            gamma=0.9,
            policy_kwargs={"net_arch": [16, 16]},
            replay_buffer_class=EpisodeReplay,
            device="cpu",
        )
        other._logger = own._logger = _Silent()  # type: ignore[assignment]
        other.policy.load_state_dict(own.policy.state_dict())
        rng = np.random.default_rng(0)
        for learner in (own, other):
            learner.replay_buffer = EpisodeReplay(
                50, learner.observation_space, learner.action_space, "cpu", seed=3
            )
        for _ in range(40):
            seen, then, action = (rng.random((1, n)).astype(np.float32) for n in (3, 3, 1))
            end, reward = np.array([rng.random() < 0.3]), rng.random(1).astype(np.float32)
            for learner in (own, other):
                assert learner.replay_buffer is not None
                learner.replay_buffer.add(seen, then, action, reward, end, [{}])
        own.train(20, 8)
        other.train(20, 8)
    for (name, mine), theirs in zip(own.policy.named_parameters(), other.policy.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, msg=name, rtol=1e-4, atol=1e-6)


class _Silent:
    def record(self, *args: Any, **kwargs: Any) -> None:
        pass


def test_actor_and_critic_learn_at_their_own_pace() -> None:
    with OwnRandomness(0).inside():
        learnt = agent(actor_lr=1e-5, critic_lr=1e-2, warmup=2)
        before = [[p.detach().clone() for p in m.parameters()] for m in (learnt.actor, learnt.critic)]
        learnt.learn(4, log_interval=None)  # type: ignore[arg-type]
        after = [[p.detach() for p in m.parameters()] for m in (learnt.actor, learnt.critic)]
        moved = [
            max(float((a - b).abs().max()) for a, b in zip(old, new, strict=True))
            for old, new in zip(before, after, strict=True)
        ]
    assert 0 < moved[0] < 1e-4
    assert moved[1] > 5e-3
