"""Random pruning: the baseline that every comparison needs."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from billhook.methods.sparse._at_initialisation import prune_in_rounds
from billhook.methods.sparse._base import SparseMethod, SparseOutcome, SparseProblem
from billhook.registry import Info

INFO = Info("lets weights leave by chance, the baseline", notes="needs no data; train afterwards")


@dataclass(frozen=True)
class Random(SparseMethod):
    """Scores from U(0, 1), drawn from the seed and the name of each tensor.

    With allocation="erk", the baseline of Evci et al., "Rigging the Lottery", ICML 2020. arXiv:1911.11134.
    """

    def run(self, problem: SparseProblem) -> SparseOutcome:
        """Return the structures, and a copy of the network that has them."""
        return prune_in_rounds(problem, _scores)


def _scores(problem: SparseProblem, number: int) -> dict[str, Tensor]:
    """Return one draw per weight; the order of the tensors does not matter."""
    found = {}
    for name, layer in problem.layers.items():
        seed = zlib.crc32(name.encode()) ^ (problem.seed & 0xFFFFFFFF)
        generator = torch.Generator().manual_seed(seed)
        found[name] = torch.rand(layer.shape, generator=generator, dtype=torch.float64)
    return found


ENTRY = Random
