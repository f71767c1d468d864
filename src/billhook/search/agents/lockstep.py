"""Episodes side by side for Stable-Baselines3: they end together, and are evaluated as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.vec_env import VecEnv

from billhook.search.agents.environment import box
from billhook.search.agents.features import FEATURES
from billhook.search.agents.rewards import reward_of
from billhook.search.agents.walk import Candidates, Observations, Walk

Array = npt.NDArray[Any]


class Lockstep(VecEnv):
    """As many `SearchEnvironment`s as candidates are evaluated side by side.

    Args:
        candidates: A `Session`, or whatever else evaluates.
        reward: One of `billhook.search.agents.rewards`.
        episodes: How many.
        symmetric: Actions are from -1 to 1, for agents whose policies start around 0.
    Raises:
        BudgetError: if no candidate meets the budget.
    """

    def __init__(
        self, candidates: Candidates, reward: str = "error", episodes: int = 1, *, symmetric: bool = False
    ) -> None:
        self.walk = Walk(candidates, episodes)
        self._candidates, self._reward, self._symmetric = candidates, reward, symmetric
        self._actions: Array = np.zeros((episodes, 1), dtype=np.float32)
        super().__init__(episodes, box(0, len(FEATURES)), box(-1 if symmetric else 0, 1))

    def reset(self) -> Observations:
        """Start all episodes."""
        self._reset_seeds()
        self._reset_options()
        return self.walk.begin()

    def step_async(self, actions: Array) -> None:
        """Take the actions of all episodes: [episodes, 1]."""
        self._actions = (actions + 1) / 2 if self._symmetric else actions

    def step_wait(self) -> tuple[Observations, Array, Array, list[dict[str, Any]]]:
        """Decide the next gene of all episodes; after the last one, evaluate them and start anew."""
        seen = self.walk.step(self._actions)
        rewards, ends = np.zeros(self.num_envs, dtype=np.float32), np.full(self.num_envs, self.walk.done)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if self.walk.done:
            trials = self._candidates.evaluate(self.walk.rows)
            if len(trials) < self.num_envs:
                self._candidates.evaluate(self.walk.rows[len(trials) :])  # says that the trials are used up
            for i, trial in enumerate(trials):
                rewards[i] = reward_of(self._reward, trial)
                infos[i] = {"trial": trial, "terminal_observation": seen[i], "TimeLimit.truncated": False}
            seen = self.walk.begin()
        return seen, rewards, ends, infos

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute, the same for all episodes."""
        if attr_name == "render_mode":
            return [None] * self.num_envs
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refused: there are no separate environments."""
        raise NotImplementedError(f"episodes in lockstep have no attribute {attr_name!r} of their own")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Refused: there are no separate environments."""
        raise NotImplementedError(f"episodes in lockstep have no method {method_name!r} of their own")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Return False for every episode."""
        return [False] * len(list(self._get_indices(indices)))

    def get_images(self) -> Sequence[Array | None]:
        """Return nothing to look at."""
        return [None] * self.num_envs
