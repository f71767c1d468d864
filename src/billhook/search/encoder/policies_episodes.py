"""GNN-RL's environment: all genes lose channels at once, step by step, until the budget is met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from billhook.search.costs import SearchCosts
from billhook.search.encoder.rays import at_budget, meets
from billhook.search.space import Floats, Genes

Judge = Callable[[Sequence[Genes]], Sequence[float]]
UNMET = -1.0  # the reward of an episode that does not meet the budget: as if nothing were right
_PATIENCE = 200  # steps in which no episode met it; then the next ones are made to


class PruningEpisodes(VecEnv):
    """Episodes side by side, whose candidates are judged together.

    The observation is what is left of each gene, as fractions of channels that really exist. An action a in
    [-1, 1] takes (1 + a) / 2 of that away. The step that meets the budget is cut short where it does, so that
    candidates are as large as it allows; the episode ends there with the reward -(1 - accuracy). Before, the
    reward is 0. After `steps` steps it ends unmet, with -1, and nothing is evaluated.

    Args:
        costs: With limits.
        judge: Candidates → accuracies.
        episodes: How many side by side.
        steps: At most, in an episode.

    References:
        Yu, Mazaheri, Jannesari, GNN-RL, ICML 2022. arXiv:2102.03214.
    Differs from the source:
        There p ← clip(p (1 - a)) with a from a tanh, which for negative a puts channels back; the last step
        overshoots the budget.
    """

    render_mode = None  # as the base class asks for

    def __init__(self, costs: SearchCosts, judge: Judge, episodes: int, steps: int = 5) -> None:
        genes = len(costs.space.genes)
        super().__init__(
            episodes, spaces.Box(0.0, 1.0, (genes,), np.float32), spaces.Box(-1.0, 1.0, (genes,), np.float32)
        )
        self.costs, self.judge, self.steps = costs, judge, steps
        self._left: Floats = np.ones((episodes, genes))
        self._taken = np.zeros(episodes, dtype=np.int64)
        self._since = 0  # steps since a candidate was judged
        self._actions: npt.NDArray[Any] = np.zeros((episodes, genes))
        self._floor = costs.space.fractions(costs.space.lowest)[0]

    def reset(self) -> VecEnvObs:
        """Begin all episodes anew and return what is left."""
        self._left[:], self._taken[:] = 1.0, 0
        return self._observed()

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Take actions [episodes, genes]."""
        self._actions = np.clip(actions.astype(np.float64), -1.0, 1.0)

    def step_wait(self) -> VecEnvStepReturn:
        """Carry them out; return observations, rewards, which episodes ended, and about that."""
        before = self._left.copy()
        self._left = np.maximum(before * (1 - (1 + self._actions) / 2), self._floor)
        self._taken += 1
        rewards: npt.NDArray[np.float32] = np.zeros(self.num_envs, dtype=np.float32)
        done: npt.NDArray[np.bool_] = self._taken >= self.steps
        met = [meets(self.costs, left) for left in self._left]
        patient = self._since < _PATIENCE
        rows: dict[int, Genes] = {}
        for i in range(self.num_envs):
            if met[i] or (done[i] and not patient):
                # An action of nothing at all would lead nowhere, so it is taken as one for all alike.
                step = before[i] - self._left[i] if met[i] else np.ones_like(before[i])
                rows[i] = at_budget(self.costs, before[i], step)
        rewards[done] = UNMET
        if rows:
            rewards[list(rows)] = np.array(self.judge(list(rows.values()))) - 1
            done[list(rows)] = True
            self._left[list(rows)] = self.costs.space.fractions(np.stack(list(rows.values())))
        self._since = 0 if rows else self._since + 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = self._observed()
        for i, info in enumerate(infos):
            if done[i]:
                info["terminal_observation"] = ended[i]
        self._left[done], self._taken[done] = 1.0, 0
        return self._observed(), rewards, done, infos

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute, the same for all episodes."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute, of all episodes."""
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method, once for each episode."""
        return [getattr(self, method_name)(*args, **kwargs) for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Nothing is wrapped."""
        return [False for _ in self._get_indices(indices)]

    def _observed(self) -> npt.NDArray[np.float32]:
        space = self.costs.space
        return space.fractions(space.nearest(self._left)).astype(np.float32)
