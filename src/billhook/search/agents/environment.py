"""One episode of AMC as a Gymnasium environment, for any agent with continuous actions."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from billhook.search.agents.features import FEATURES
from billhook.search.agents.rewards import reward_of
from billhook.search.agents.walk import Candidates, Walk

Observation = npt.NDArray[np.float32]


class SearchEnvironment(gymnasium.Env[Observation, npt.NDArray[np.float32]]):
    """Decides one gene after the other; the reward comes with the last.

    The action is the fraction to keep, see `Walk.step`; the observation has the features of
    `billhook.search.agents.features`. `info["trial"]` then is the evaluated candidate.

    Args:
        candidates: A `Session`, or whatever else evaluates.
        reward: One of `billhook.search.agents.rewards`.
    Raises:
        BudgetError: if no candidate meets the budget.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  as the base class has it

    def __init__(self, candidates: Candidates, reward: str = "error") -> None:
        self.observation_space, self.action_space = box(0, len(FEATURES)), box(0, 1)
        self._candidates, self._reward = candidates, reward
        self._walk = Walk(candidates)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        return self._walk.begin()[0], {}

    def step(self, action: npt.NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Decide the next gene."""
        seen = self._walk.step(action)[0]
        if not self._walk.done:
            return seen, 0.0, False, False, {}
        trial = self._candidates.evaluate(self._walk.rows)[0]
        return seen, reward_of(self._reward, trial), True, False, {"trial": trial}


def box(low: float, size: int) -> spaces.Box[np.float32]:
    """Return the space of vectors from `low` to 1; a new one, since spaces hold random generators."""
    return spaces.Box(low, 1.0, (size,), np.float32)
