"""Exploration of a deterministic policy: draws from a normal distribution cut off at the ends of [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Exploration:
    """How far actions stray from the policy, episode by episode.

    Attributes:
        warmup: Episodes at the start with actions that are uniform over [0, 1].
        sigma: Standard deviation in the first episode after that.
        decay: Factor on it from one episode to the next.
        least: It falls no further than this.

    References:
        He et al., "AMC: AutoML for Model Compression and Acceleration on Mobile Devices", ECCV 2018, section
        3.2: σ = 0.5, decay 0.95, 100 episodes of warm-up.
    """

    warmup: int
    sigma: float = 0.5
    decay: float = 0.95
    least: float = 0.0

    def actions(self, means: Floats, episodes: npt.NDArray[np.int64], rng: np.random.Generator) -> Floats:
        """Return what is done where the policy says `means`.

        Args:
            means: Actions of the policy, from 0 to 1: [episodes side by side].
            episodes: Number of each of these episodes, from 0.
            rng: Draws once for each, during the warm-up and after it.
        """
        drawn = rng.random(means.shape)
        sigmas = self.sigma * self.decay ** np.maximum(episodes - self.warmup, 0)
        sigmas = np.maximum(sigmas, min(self.least, self.sigma))
        return np.where(episodes < self.warmup, drawn, truncated_normal(means, sigmas, drawn))


def truncated_normal(mean: Floats, sigma: Floats, quantile: Floats) -> Floats:
    """Return quantiles of the normal distributions around `mean` that are cut off at 0 and 1.

    Exact for means from 0 to 1: one end is then never more than half of the mass away. A sigma of 0 gives the
    mean.
    """
    width = np.maximum(sigma, 1e-12)
    low, high = ndtr((0.0 - mean) / width), ndtr((1.0 - mean) / width)
    found: Floats = np.clip(mean + width * ndtri(low + quantile * (high - low)), 0.0, 1.0)
    return found
