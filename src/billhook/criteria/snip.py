"""SNIP: how much the loss feels that a weight is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from billhook.criteria._base import Calibration, ScoreContext
from billhook.criteria._gradients import mean_gradients
from billhook.criteria._passes import needed
from billhook.criteria._weight_sums import WeightSums, share
from billhook.options import Number, option
from billhook.registry import Info

INFO = Info(
    "absolute derivative of the loss with respect to a factor on each weight",
    "Lee et al., SNIP, ICLR 2019, arXiv:1810.02340",
    needs_data=True,
    notes="made for untrained networks",
)


@dataclass(frozen=True)
class Snip(WeightSums):
    """Σ |w · ∂L/∂w| over the unit's weights, as a share of the sum over all scored weights.

    w · ∂L/∂w is the derivative of the loss with respect to a factor m = 1 in front of w.

    References:
        Lee et al., "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019.
        arXiv:1810.02340.
    Differs from the source:
        Sums over units instead of single weights. The network is scored as it is, in eval mode; the source's
        code scores a newly initialised copy. Of several batches (default 1, as there), the mean gradient
        counts.
    """

    batches: int = option(1, Number(1, integer=True), "use at most this many batches")

    def importance(
        self,
        model: nn.Module,
        names: Sequence[str],
        context: ScoreContext,
        calibration: Calibration | None,
    ) -> Mapping[str, Tensor]:
        """Return the share of every weight."""
        calibration = needed(calibration, "snip")
        gradients = mean_gradients(model, names, calibration, batches=self.batches, seed=context.seed)
        return share({name: (context.tensors[name] * g).abs() for name, g in gradients.items()})


ENTRY = Snip
