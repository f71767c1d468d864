"""Agents by name."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecEnv

from billhook.search.agents.ddpg import EpisodicDDPG
from billhook.search.agents.exploration import Exploration
from billhook.search.agents.options import AgentOptions
from billhook.search.agents.replay import EpisodeReplay

SYMMETRIC = ("ppo",)  # their actions are from -1 to 1
_NOISE = 0.2  # of TD3, on a range of actions of 2
_EPISODES = 8  # of PPO, between its updates


def agent_of(options: AgentOptions, env: VecEnv, length: int, trials: int, seed: int) -> BaseAlgorithm:
    """Return the agent that options name.

    TD3, SAC and PPO are Stable-Baselines3's own; TD3 and SAC learn from the same replay as DDPG.

    Args:
        options: What it is and how it learns.
        env: Episodes side by side.
        length: Steps of an episode.
        trials: How many episodes were planned; says how many of them are random.
        seed: Of everything that it draws.
    """
    warmup = options.random_episodes(trials)
    if options.agent == "ddpg":
        return EpisodicDDPG(
            env,
            length,
            Exploration(warmup, options.sigma, options.sigma_decay, options.least_sigma),
            hidden=options.hidden,
            actor_lr=options.actor_lr,
            critic_lr=options.critic_lr,
            tau=options.tau,
            batch=options.batch,
            replay=options.kept(length),
            updates=options.updates,
            seed=seed,
        )
    common: dict[str, Any] = {
        "learning_rate": options.critic_lr,
        "batch_size": options.batch,
        "gamma": 1.0,
        "seed": seed,
        "device": "cpu",
        "policy_kwargs": {"net_arch": [options.hidden, options.hidden]},
    }
    if options.agent == "ppo":
        rounds = max(1, _EPISODES // env.num_envs)
        steps = rounds * length
        common["batch_size"] = steps * env.num_envs  # whole rollouts: a remainder would be a tiny batch
        return PPO("MlpPolicy", env, n_steps=steps, **common)
    common |= {
        "tau": options.tau,
        "buffer_size": options.kept(length),
        "learning_starts": warmup * length,
        "train_freq": (length, "step"),
        "gradient_steps": max(1, round(options.updates * length * env.num_envs)),
        "replay_buffer_class": EpisodeReplay,
        "replay_buffer_kwargs": {"seed": seed},
    }
    if options.agent == "td3":
        noise = NormalActionNoise(np.zeros(1), np.full(1, _NOISE))
        return TD3("MlpPolicy", env, action_noise=noise, **common)
    return SAC("MlpPolicy", env, **common)
