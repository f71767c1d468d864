from __future__ import annotations

import pytest
from stable_baselines3 import PPO, SAC, TD3

from billhook.search.agents.choose import SYMMETRIC, agent_of
from billhook.search.agents.ddpg import EpisodicDDPG
from billhook.search.agents.lockstep import Lockstep
from billhook.search.agents.options import AGENTS, AgentOptions
from billhook.search.agents.randomness import OwnRandomness
from billhook.search.agents.replay import EpisodeReplay
from tests.search_candidates import Judged, mlp_space

CLASSES = {"ddpg": EpisodicDDPG, "td3": TD3, "sac": SAC, "ppo": PPO}


@pytest.mark.parametrize("name", AGENTS)
def test_names_are_those_of_the_classes(name: str) -> None:
    env = Lockstep(Judged(mlp_space(), lambda g: 0.5), episodes=2, symmetric=name in SYMMETRIC)
    with OwnRandomness(0).inside():
        agent = agent_of(AgentOptions(agent=name, hidden=16), env, 3, 40, 0)
    assert type(agent) is CLASSES[name]
    assert agent.gamma == 1
    if name != "ppo":
        assert isinstance(agent.replay_buffer, EpisodeReplay)
        assert agent.replay_buffer.buffer_size == 300
        assert agent.learning_starts == 15
        assert agent.gradient_steps == 6
