"""GraSP: keep the weights without which the gradient flow would shrink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from billhook.criteria._base import Calibration, ScoreContext
from billhook.criteria._gradients import hessian_times_gradient
from billhook.criteria._passes import needed
from billhook.criteria._weight_sums import WeightSums, share
from billhook.options import Number, option
from billhook.registry import Info

INFO = Info(
    "change of the gradient's norm when a weight leaves",
    "Wang et al., Picking Winning Tickets Before Training, ICLR 2020, arXiv:2002.07376",
    needs_data=True,
    notes="scores may be negative: without such a unit the gradient grows; needs second derivatives",
)


@dataclass(frozen=True)
class Grasp(WeightSums):
    """Σ w · (H g) over the unit's weights, as a share of the absolute sum over all scored weights.

    The source scores a weight by S = −w · (H g) and removes the largest S: to first order, ‖g‖² changes by 2S
    when the weight becomes zero, so the gradient grows most. Here higher means keep, so the score is −S. 0
    is not the lowest score: there are units that hinder the gradient. Nor does a unit with an output of zero
    always score 0, because it may learn through the weights that read it.

    References:
        Wang et al., "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020.
        arXiv:2002.07376.
    Differs from the source:
        Sums over units. Eval mode instead of training mode, so batch norms use running statistics. Linear
        layers keep their weights; the source's code draws new ones. As there, outputs are divided by a
        temperature, and each batch is worked through in two halves, for memory; g is the sum over halves.
    """

    temperature: float = option(200.0, Number(1), "outputs are divided by it before the loss")
    batches: int = option(1, Number(1, integer=True), "use at most this many batches")

    def importance(
        self,
        model: nn.Module,
        names: Sequence[str],
        context: ScoreContext,
        calibration: Calibration | None,
    ) -> Mapping[str, Tensor]:
        """Return the share of every weight."""
        products = hessian_times_gradient(
            model,
            names,
            needed(calibration, "grasp"),
            batches=self.batches,
            seed=context.seed,
            temperature=self.temperature,
        )
        return share({name: context.tensors[name] * product for name, product in products.items()})


ENTRY = Grasp
