"""Asymptotic soft filter pruning: few units are zeroed at first, then more and more."""

from __future__ import annotations

from dataclasses import dataclass

from billhook.methods._asymptotic import SCHEDULES
from billhook.methods.soft import Soft
from billhook.options import OneOf, option
from billhook.registry import Info

INFO = Info(
    "soft filter pruning whose rate rises asymptotically",
    "He et al., Asymptotic Soft Filter Pruning, IEEE Trans. Cybernetics 2020, arXiv:1808.07471",
    needs_data=True,
    trains=True,
    notes="method 'soft' with another default",
)


@dataclass(frozen=True)
class Asfp(Soft):
    """`Soft` with a rate that reaches three quarters of its goal after an eighth of the run.

    Zeroing a whole share of the units at once costs more than training can mend in one round; few at a time
    leave the network time to move what they knew elsewhere.

    References:
        He et al., "Asymptotic Soft Filter Pruning for Deep Convolutional Neural Networks", IEEE Trans.
        Cybernetics 2020. arXiv:1808.07471.
    Differs from the source:
        As `Soft` does.
    """

    rate_schedule: str = option("asymptotic", OneOf(*SCHEDULES), "how the number of zeroed units grows")


ENTRY = Asfp
