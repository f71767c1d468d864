"""GReg-1: the smallest units, pushed to zero by a penalty that grows."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from billhook.methods._base import Problem
from billhook.methods._growing import Growing, GrowingCallback
from billhook.methods._training import MethodCallback
from billhook.registry import Info
from billhook.train import StepContext

INFO = Info(
    "the smallest units are pushed to zero by a growing L2 penalty",
    "Wang et al., Neural Pruning via Growing Regularization, ICLR 2021, arXiv:2012.09243",
    needs_data=True,
    trains=True,
    notes="for SGD; plan.made_by['remaining'] says what was left of the units when they were removed",
)


@dataclass(frozen=True)
class Greg1(Growing):
    """Chooses the units of smallest mean |w| once, and lets λ grow for them while the network trains.

    Each step adds λ_u · W_u to the gradient of the weights that make a unit that leaves, on top of weight
    decay. The network moves what those units did to others before they are removed.

    Widths come from the budget, once, at the first step. λ grows linearly over the first `ramp` of the run
    and stays for the rest (the stabilising phase); top=1, delta=1e-4, every=5 are the published constants. By
    default they stretch over whatever length a run has, and top is larger where a run is too short to shrink
    weights as much as the published one at its learning rate would.

    How far down the units came is recorded in `plan.made_by["remaining"]`: the mean |w| of those that leave
    divided by that of those that stay, in the worst group. What remains is removed at the end all the same.
    Where a batch norm follows, units shrink late, when the learning rate is small, because smaller weights
    have larger gradients there: on small networks (peak rate 0.05, cosine) 2 to 4 % remained after 24 and 96
    steps, 0.4 % after 400; without batch norm, below 0.02 %.

    Scales and shifts of norms and biases are not penalised (`tpp` does that), so a unit ends as a constant;
    its removal takes that constant from the next layer, which batch norm makes good as soon as its statistics
    are taken anew.

    References:
        Wang et al., "Neural Pruning via Growing Regularization", ICLR 2021.
    Differs from the source:
        One budget for the network and the same fraction of every group instead of a rate per layer. All
        layers that write into a shared set of channels are judged and penalised together; the source does not
        prune those. λ grows to the end of the ramp, not until a ratio of magnitudes is reached. λ is never
        above 1 / lr, where a step would overshoot zero. Gradient clipping, if the run clips, cuts the penalty
        too.
    """

    def callback(self, problem: Problem) -> MethodCallback:
        """Return what penalises."""
        return Greg1Callback(self, problem)


class Greg1Callback(GrowingCallback):
    """The ramp begins at once."""

    def begin(self, context: StepContext) -> None:
        """Choose units, and let their penalty grow from the first step on."""
        super().begin(context)
        self.memory["ramps"]["leave"] = asdict(self.growing.ramp_within(context, 0))


ENTRY = Greg1
