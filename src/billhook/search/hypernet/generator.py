"""Two fully connected layers that generate a weight from widths, whole or factorised."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RANK = 8  # of the generated part of a factorised weight, where it fits


class Generator(nn.Module):
    """The weight of one layer as a function of widths: W(v) = B + Q ReLU(P v + p).

    Args:
        widths: How many widths it depends on.
        hidden: Outputs of the first layer, P v + p.
        base: B, the bias of the second layer, in the shape of the weight; what W(v) begins with.
    """

    def __init__(self, widths: int, hidden: int, base: Tensor) -> None:
        super().__init__()
        self.first = nn.Linear(widths, hidden)
        self.base = nn.Parameter(base.detach().clone())

    def forward(self, fractions: Tensor) -> Tensor:
        """Return the weight in full size.

        Args:
            fractions: Widths relative to the full ones; shape [widths].
        """
        return self.base + self.generated(F.relu(self.first(fractions))).view(self.base.shape)

    def generated(self, hidden: Tensor) -> Tensor:
        """Return what the second layer adds to its bias; `hidden` has shape [hidden]."""
        raise NotImplementedError


class FullGenerator(Generator):
    """The second layer has a row for every number of the weight."""

    def __init__(self, widths: int, hidden: int, base: Tensor, spread: float) -> None:
        super().__init__(widths, hidden, base)
        bound = spread * _deviation(base) * (3 / hidden) ** 0.5
        self.second = nn.Parameter(torch.empty(base.numel(), hidden).uniform_(-bound, bound))

    def generated(self, hidden: Tensor) -> Tensor:  # noqa: D102
        return self.second @ hidden


class FactorisedGenerator(Generator):
    """The second layer generates a factor with a row per output and one with a column per input.

    Their product is what it adds to its bias; it begins at zero, because one of the factors does.
    """

    def __init__(self, widths: int, hidden: int, base: Tensor, rank: int) -> None:
        super().__init__(widths, hidden, base)
        self.rank, rows, columns = rank, *_matrix(base)
        # A step then moves what is generated as far as a step moves the bias.
        bound = (2 / columns * 3 / hidden) ** 0.5
        self.outputs = nn.Parameter(torch.zeros(rows * rank, hidden))
        self.inputs = nn.Parameter(torch.empty(rank * columns, hidden).uniform_(-bound, bound))

    def generated(self, hidden: Tensor) -> Tensor:  # noqa: D102
        return (self.outputs @ hidden).view(-1, self.rank) @ (self.inputs @ hidden).view(self.rank, -1)


def make_generator(widths: int, hidden: int, base: Tensor, limit: int, spread: float) -> Generator:
    """Return the generator of a weight: the full form where its second layer has at most `limit` numbers.

    The bias, which is as large as the weight, is not counted. The factorised form takes the largest rank up
    to `RANK` that keeps to the limit, and rank 1 where none does.

    Args:
        widths: How many widths the weight depends on.
        hidden: Outputs of the first layer.
        base: What the weight begins with, in full size.
        limit: Numbers in the second layer.
        spread: How far weights of different widths are apart at the beginning, relative to `base`; the
            factorised form begins at `base` for all widths.
    Differs from the source:
        There is no factorised form; the second layer for a 1×1 convolution of 1,024 channels has 34 million
        numbers.
    """
    if hidden * base.numel() <= limit:
        return FullGenerator(widths, hidden, base, spread)
    rank = limit // (hidden * sum(_matrix(base)))
    return FactorisedGenerator(widths, hidden, base, min(max(rank, 1), RANK))


def _matrix(weight: Tensor) -> tuple[int, int]:
    return weight.shape[0], prod(weight.shape[1:])


def _deviation(base: Tensor) -> float:
    """Return the root mean square, which is the deviation of weights around zero."""
    return float(base.detach().square().mean().sqrt())
