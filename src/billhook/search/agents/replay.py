"""What an agent learns from: whole episodes, each of whose steps gets the reward that came at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples


class EpisodeReplay(ReplayBuffer):
    """A ring of transitions that takes in an episode when it ends.

    Episodes side by side end together and are kept one after the other. From the rewards of every batch that
    is drawn the moving average of such batches is taken away, the batch itself included.

    Args:
        buffer_size: Transitions that are kept, over all episodes.
        observation_space: As every buffer of Stable-Baselines3 takes it.
        action_space: The same.
        device: The same.
        n_envs: The same; here only how many episodes run side by side.
        optimize_memory_usage: Must be False.
        seed: Of the draws.
        baseline: How fast the moving average follows; 0 takes nothing away.

    References:
        He et al., "AMC: AutoML for Model Compression and Acceleration on Mobile Devices", ECCV 2018, section
        3.2, and the authors' code: b ← b + 0.5 (mean reward of the batch - b), targets use r - b.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        *,
        seed: int = 0,
        baseline: float = 0.5,
    ) -> None:
        super().__init__(buffer_size, observation_space, action_space, device, 1, optimize_memory_usage)
        self._rng, self._rate = np.random.default_rng(seed), baseline
        self._held: list[tuple[npt.NDArray[Any], ...]] = []
        self.mean: float | None = None  # the moving average b; nothing was drawn yet

    def add(
        self,
        obs: npt.NDArray[Any],
        next_obs: npt.NDArray[Any],
        action: npt.NDArray[Any],
        reward: npt.NDArray[Any],
        done: npt.NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Hold a step of all episodes back; with their last step, take them in."""
        self._held.append((obs.copy(), next_obs.copy(), action.copy(), done.copy()))
        if not done.any():
            return
        if not done.all():
            raise ValueError("episodes side by side must end together")
        steps, self._held = self._held, []
        for episode, final in enumerate(reward):
            for seen, then, did, ended in steps:
                self._keep(seen[episode], then[episode], did[episode], float(final), bool(ended[episode]))

    def _keep(
        self,
        obs: npt.NDArray[Any],
        next_obs: npt.NDArray[Any],
        action: npt.NDArray[Any],
        reward: float,
        done: bool,
    ) -> None:
        at = self.pos
        self.observations[at, 0], self.next_observations[at, 0], self.actions[at, 0] = obs, next_obs, action
        self.rewards[at, 0], self.dones[at, 0] = reward, done
        self.pos = (at + 1) % self.buffer_size
        self.full = self.full or self.pos == 0

    def sample(self, batch_size: int, env: Any = None) -> ReplayBufferSamples:
        """Return transitions drawn at random, with repetition; their rewards are relative to the average."""
        at = self._rng.integers(0, self.size(), size=batch_size)
        rewards = self.rewards[at]
        if self._rate > 0:
            mean = float(rewards.mean())
            self.mean = mean if self.mean is None else self.mean + self._rate * (mean - self.mean)
            rewards = rewards - np.float32(self.mean)
        drawn = (self.observations[at, 0], self.actions[at, 0], self.next_observations[at, 0], self.dones[at])
        return ReplayBufferSamples(*(torch.from_numpy(d) for d in (*drawn, rewards)))
