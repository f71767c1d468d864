"""Deep deterministic policy gradient with the details of AMC, on Stable-Baselines3."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3 import DDPG
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from billhook.search.agents.exploration import Exploration
from billhook.search.agents.perceptron import Perceptron
from billhook.search.agents.replay import EpisodeReplay

Array = npt.NDArray[Any]


class EpisodicDDPG(DDPG):
    """DDPG whose episodes all have the same length and end together.

    After each round of episodes there is one update for every transition of them. During the warm-up there is
    none.

    Args:
        env: Episodes side by side; see `billhook.search.agents.lockstep`.
        length: Steps of an episode.
        exploration: How far actions stray from the policy.
        hidden: Width of the two hidden layers of actor and critic.
        actor_lr: Step size of the actor.
        critic_lr: Step size of the critic.
        tau: How fast the targets follow.
        gamma: Discount.
        batch: Transitions of an update.
        replay: Transitions that are kept.
        updates: Updates for each transition.
        seed: Of everything that is drawn.

    References:
        Lillicrap et al., "Continuous control with deep reinforcement learning", ICLR 2016, arXiv:1509.02971.
        He et al., "AMC: AutoML for Model Compression and Acceleration on Mobile Devices", ECCV 2018.
    Differs from the source:
        The critic's first layer reads (s, a) side by side, as in Stable-Baselines3; the sum of one layer for
        s and one for a is the same function, but starts with larger weights for a. The actor ends in a tanh
        on actions in [-1, 1] rather than a sigmoid on [0, 1]: the same again. All updates of a round come
        after its last episode, so that they sample from all of it.
    """

    def __init__(
        self,
        env: VecEnv,
        length: int,
        exploration: Exploration,
        *,
        hidden: int = 300,
        actor_lr: float = 1e-4,
        critic_lr: float = 1e-3,
        tau: float = 0.01,
        gamma: float = 1.0,
        batch: int = 64,
        replay: int = 2000,
        updates: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.length, self.exploration, self.updates = length, exploration, updates
        self.actor_lr, self.critic_lr = actor_lr, critic_lr
        self._rng = np.random.default_rng([seed, 1])
        super().__init__(
            "MlpPolicy",
            env,
            learning_rate=critic_lr,
            buffer_size=replay,
            learning_starts=exploration.warmup * length,
            batch_size=batch,
            tau=tau,
            gamma=gamma,
            train_freq=(length, "step"),
            gradient_steps=max(1, round(updates * length * env.num_envs)),
            replay_buffer_class=EpisodeReplay,
            replay_buffer_kwargs={"seed": seed},
            policy_kwargs={"net_arch": [hidden, hidden], "optimizer_kwargs": {"fused": True}},
            device="cpu",
            seed=seed,
        )

    def _update_learning_rate(self, optimizers: Any) -> None:
        for optimizer, lr in ((self.actor.optimizer, self.actor_lr), (self.critic.optimizer, self.critic_lr)):
            for group in optimizer.param_groups:
                group["lr"] = lr

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[Array, Array]:
        """Return actions in [0, 1] for the environment, and in [-1, 1] for the replay: [episodes, 1]."""
        assert isinstance(self._last_obs, np.ndarray)
        with torch.no_grad():
            means = self.actor(torch.from_numpy(self._last_obs)).numpy().astype(np.float64)[:, 0]
        episodes = self.num_timesteps // (self.length * n_envs) * n_envs + np.arange(n_envs)
        actions = self.exploration.actions((means + 1) / 2, episodes, self._rng)[:, None].astype(np.float32)
        return actions, 2 * actions - 1

    @torch.no_grad()
    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Update critic, actor and their targets `gradient_steps` times."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(None)
        buffer, tau = self.replay_buffer, self.tau
        assert buffer is not None
        actor, critic = Perceptron(self.actor.mu), Perceptron(_first(self.critic))
        actor_target, critic_target = Perceptron(self.actor_target.mu), Perceptron(_first(self.critic_target))
        targets = [p.data for m in (self.actor_target, self.critic_target) for p in m.parameters()]
        sources = [p.data for m in (self.actor, self.critic) for p in m.parameters()]
        for _ in range(gradient_steps):
            seen = buffer.sample(batch_size)
            then = actor_target.forward(seen.next_observations)[-1].tanh_()
            value = critic_target.forward(torch.cat([seen.next_observations, then], 1))[-1]
            wanted = seen.rewards + self.gamma * (1 - seen.dones) * value

            passed = critic.forward(torch.cat([seen.observations, seen.actions], 1))
            critic.backward(passed, (passed[-1] - wanted) * (2 / len(wanted)), to_input=False)
            self.critic.optimizer.step()

            chosen = actor.forward(seen.observations)
            action = chosen[-1].tanh()
            passed = critic.forward(torch.cat([seen.observations, action], 1))
            slope = critic.backward(passed, torch.full_like(action, -1 / len(action)), to_input=True)
            assert slope is not None
            actor.backward(chosen, slope[:, -action.shape[1] :] * (1 - action.square()), to_input=False)
            self.actor.optimizer.step()
            torch._foreach_lerp_(targets, sources, tau)
        self._n_updates += gradient_steps


def _first(critic: ContinuousCritic) -> nn.Sequential:
    network = critic.q_networks[0]
    assert isinstance(network, nn.Sequential)
    return network
