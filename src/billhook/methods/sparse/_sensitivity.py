"""What SNIP, iterative SNIP and FORCE share: how much the loss feels that a weight is there."""

from __future__ import annotations

from torch import Tensor, nn

from billhook.criteria._gradients import mean_gradients
from billhook.methods.sparse._at_initialisation import calibration_for
from billhook.methods.sparse._base import SparseProblem


def sensitivity(
    problem: SparseProblem, number: int, *, batches: int, name: str, dense: nn.Module | None = None
) -> dict[str, Tensor]:
    """Return |θ ⊙ g|, the absolute derivative of the loss with respect to a factor 1 on each weight.

    Args:
        problem: g is the gradient of its network, in eval mode.
        number: Of the round from 1; see `calibration_for`.
        batches: Use at most so many; of several, the mean gradient counts.
        name: Of the method, for messages.
        dense: θ are its weights; None: those of the problem's network.
    """
    calibration = calibration_for(problem, number, name)
    gradients = mean_gradients(
        problem.model, list(problem.layers), calibration, batches=batches, seed=problem.seed
    )
    weights = problem.weights(problem.model if dense is None else dense)
    return {tensor: (weights[tensor].detach() * g).abs() for tensor, g in gradients.items()}
