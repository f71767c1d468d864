"""The mapping of a network as a Gymnasium environment: one layer after the other gets its pattern."""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from billhook.errors import MissingExtraError
from billhook.graph.weights import WeightLayer
from billhook.sparse.mapping.latency_table import KINDS, kind_of
from billhook.sparse.mapping.problem import MappingProblem

if TYPE_CHECKING:
    import gymnasium

Observation = npt.NDArray[np.float32]
Mask = npt.NDArray[np.int8]


def environment(problem: MappingProblem) -> gymnasium.Env[Observation, np.int64]:
    """Return the environment of a problem; any agent for discrete actions can drive it.

    An episode is one pass over the layers. The observation is that of the layer whose turn it is: its kind,
    kernel, stride, inputs, outputs and positions, how far the pass is, and the last action; all from 0 to 1.
    The action is an index into the layer's options. `info["action_mask"]` is 1 for those that it has; a
    larger index counts as the first, which by default is dense. The reward comes with the last layer:
    accuracy - w · max(0, T - T_max) / T_max; `info["trial"]` then is the `Trial`.

    Raises:
        MissingExtraError: if gymnasium is not installed.
    """
    try:
        import gymnasium
        from gymnasium import spaces
    except ImportError:
        raise MissingExtraError("gymnasium", "search", "the search for a mapping") from None

    class MappingEnvironment(gymnasium.Env[Observation, np.int64]):
        metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  as the base class has it

        def __init__(self) -> None:
            self.problem = problem
            self.actions: list[int] = []
            self._features = np.stack([features(layer) for layer in problem.layers])
            size = self._features.shape[1] + 2
            self.observation_space = spaces.Box(0.0, 1.0, (size,), np.float32)
            self.action_space = spaces.Discrete(max(problem.counts))

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[Observation, dict[str, Any]]:
            super().reset(seed=seed)
            self.actions = []
            return self._observed(), self._info()

        def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
            index = int(action)
            self.actions.append(index if index < problem.counts[len(self.actions)] else 0)
            if len(self.actions) < len(problem.layers):
                return self._observed(), 0.0, False, False, self._info()
            trial = problem.trial(self.actions)
            return self._observed(), trial.reward, True, False, {**self._info(), "trial": trial}

        def _observed(self) -> Observation:
            at = min(len(self.actions), len(problem.layers) - 1)  # after the last layer, the last again
            done = len(self.actions) / len(problem.layers)
            # 0 before the first action, so that it differs from an action 0
            last = (self.actions[-1] + 1) / max(problem.counts) if self.actions else 0.0
            return np.concatenate([self._features[at], [done, last]]).astype(np.float32)

        def _info(self) -> dict[str, Any]:
            at = min(len(self.actions), len(problem.layers) - 1)
            mask: Mask = (np.arange(max(problem.counts)) < problem.counts[at]).astype(np.int8)
            return {"action_mask": mask}

    return MappingEnvironment()


def features(layer: WeightLayer) -> npt.NDArray[np.float64]:
    """Return what an agent sees of a layer, each entry from 0 to 1."""
    outputs, inputs, _ = layer.view
    kind = [float(kind_of(layer) == name) for name in KINDS]
    sizes = [
        max(layer.kernel, default=1) / 11,
        max(layer.stride, default=1) / 4,
        log2(inputs * layer.groups) / 16,
        log2(outputs) / 16,
        log2(max(1, layer.positions)) / 24,
    ]
    scaled: npt.NDArray[np.float64] = np.clip(np.array([*kind, *sizes]), 0.0, 1.0)
    return scaled
