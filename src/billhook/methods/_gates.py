"""The mathematics of stochastic hard gates (Gator), on plain tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from billhook.graph import CostModel

Floats = npt.NDArray[np.float64]


def logit(probability: float) -> float:
    """Return ln(p / (1 − p)), the parameter of a gate that is open with probability p."""
    return float(np.log(probability / (1 - probability)))


def logistic_noise(count: int, generator: torch.Generator) -> Tensor:
    """Return draws of the logistic distribution, the difference of two Gumbel variables: [count]."""
    uniform = torch.rand(count, generator=generator, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    return (uniform.log() - (1 - uniform).log()).float()


def draw(theta: Tensor, noise: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return hard gates z and the straight-through slope ∂z/∂θ.

    s = σ((θ + n) / τ), z = 1[s > ½], so that P(z = 1) = σ(θ); the slope is that of s: s (1 − s) / τ.
    """
    soft = torch.sigmoid((theta + noise) / temperature)
    return (soft > 0.5).float(), soft * (1 - soft) / temperature


def mean_slope(theta: Tensor) -> Tensor:
    """Return the expectation of the slope over the noise at temperature 1, for every θ."""
    # Midpoints of the quantiles of the noise: accurate to a few per cent, which is all a step size needs.
    u = (torch.arange(20001, dtype=torch.float64) + 0.5) / 20001
    soft = torch.sigmoid(theta.double()[:, None] + (u.log() - (1 - u).log())[None])
    return (soft * (1 - soft)).mean(1)


def steps_to_close(theta: float) -> float:
    """Return the steps of size 1 that a gate needs from θ to 0 if nothing but the cost pulls at it."""
    grid = torch.linspace(0, theta, 201)
    return float(torch.trapezoid(1 / mean_slope(grid), grid.double()))


def unit_costs(costs: CostModel, counts: npt.NDArray[np.int64], metric: str) -> Floats:
    """Return what one unit of each group costs beside the units that are there now: [groups].

    This is Σ over the layers that make or read the unit of what it costs there, the other side at its present
    width. Costs are products of widths, at most quadratic in each, so the central difference is exact.
    """
    steps = np.eye(len(counts))
    above = costs.evaluate(counts + steps, metrics=(metric,))[metric]
    below = costs.evaluate(counts - steps, metrics=(metric,))[metric]
    return np.asarray((above - below) / 2, dtype=np.float64)


def gate_gradient(slope: Tensor, task: Tensor, share: Tensor, strength: float) -> Tensor:
    """Return ∂L/∂θ = (∂L_task/∂z + λ w) · ∂z/∂θ for every gate."""
    return slope * (task + strength * share)


def excess(
    costs: Mapping[str, float], full: Mapping[str, float], limits: Mapping[str, float], progress: float
) -> float:
    """Return the largest ratio of a cost to what it may be, part of the way (`progress`) to its limit."""
    return max(costs[m] / (full[m] + min(1.0, progress) * (limits[m] - full[m])) for m in limits)
