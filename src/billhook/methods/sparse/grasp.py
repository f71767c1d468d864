"""GraSP: weights stay without which the gradient flow would shrink, before the network is trained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from billhook.criteria._gradients import hessian_times_gradient
from billhook.methods.sparse._at_initialisation import calibration_for, prune_in_rounds
from billhook.methods.sparse._base import SparseMethod, SparseOutcome, SparseProblem
from billhook.options import Number, option
from billhook.registry import Info

INFO = Info(
    "lets weights leave without which the gradient grows most",
    "Wang et al., Picking Winning Tickets Before Training, ICLR 2020, arXiv:2002.07376",
    needs_data=True,
    notes="made for untrained networks; needs second derivatives; train afterwards",
)


@dataclass(frozen=True)
class Grasp(SparseMethod):
    """Removes the largest S = −θ ⊙ H g, all tensors by one threshold.

    To first order, ‖g‖² changes by 2S when a weight becomes zero: what leaves makes the gradient grow.
    Scores have both signs; see `energies_of` for how they are compared in patterns of several weights.

    References:
        Wang et al., "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020,
        eq. (8). arXiv:2002.07376.
    Differs from the source:
        Eval mode instead of training mode, so batch norms use running statistics. Linear layers keep their
        weights; the source's code draws new ones. As there, outputs are divided by a temperature, and each
        batch is worked through in two halves; g is the sum over halves. The source takes ten samples of each
        class; here, whatever the batches hold. At least one unit of every tensor stays.
    """

    temperature: float = option(200.0, Number(1), "outputs are divided by it before the loss")
    batches: int = option(1, Number(1, integer=True), "use at most this many batches")

    def run(self, problem: SparseProblem) -> SparseOutcome:
        """Return the structures, and a copy of the network that has them."""
        return prune_in_rounds(problem, self._scores)

    def _scores(self, problem: SparseProblem, number: int) -> dict[str, Tensor]:
        """Return −S: the lowest leave."""
        products = hessian_times_gradient(
            problem.model,
            list(problem.layers),
            calibration_for(problem, number, "grasp"),
            batches=self.batches,
            seed=problem.seed,
            temperature=self.temperature,
        )
        weights = problem.weights(problem.model)
        return {name: weights[name].detach() * product for name, product in products.items()}


ENTRY = Grasp
