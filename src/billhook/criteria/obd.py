"""OBD: the second-order change of the loss, with the diagonal of the empirical Fisher matrix as Hessian."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from billhook.criteria._base import Calibration, ScoreContext
from billhook.criteria._gradients import mean_squared_gradients
from billhook.criteria._passes import needed
from billhook.criteria._weight_sums import WeightSums
from billhook.options import Number, OneOf, option
from billhook.registry import Info

INFO = Info(
    "second-order change of the loss, weight by weight",
    "LeCun et al., Optimal Brain Damage, NIPS 1989",
    needs_data=True,
    notes="one backward pass per sample; gradients='batch' needs one per batch",
)


@dataclass(frozen=True)
class Obd(WeightSums):
    """Σ ½ h w² over the unit's weights, h = E[(∂L/∂w)²] over single samples.

    At a minimum of a negative log-likelihood, the mean squared gradient (empirical Fisher) stands for the
    second derivative. Each sample goes through the network and the loss alone. For gradients="batch", the
    square of a batch's gradient times its size stands for the mean over its samples: the same in expectation
    at a minimum, for a loss that is the mean over samples.

    References:
        LeCun et al., "Optimal Brain Damage", NIPS 1989.
    Differs from the source:
        Empirical Fisher instead of second derivatives by back-propagation; sums over units, still without
        cross terms between their weights.
    """

    additive: ClassVar[bool] = True

    gradients: str = option("sample", OneOf("sample", "batch"), "which gradients are squared")
    batches: int = option(30, Number(1, integer=True), "use at most this many batches")

    def importance(
        self,
        model: nn.Module,
        names: Sequence[str],
        context: ScoreContext,
        calibration: Calibration | None,
    ) -> Mapping[str, Tensor]:
        """Return ½ h w² of every weight."""
        curvature = mean_squared_gradients(
            model,
            names,
            needed(calibration, "obd"),
            batches=self.batches,
            seed=context.seed,
            by_sample=self.gradients == "sample",
        )
        return {name: h * context.tensors[name].float().square() / 2 for name, h in curvature.items()}


ENTRY = Obd
