"""One-shot magnitude pruning: the smallest weights, blocks or kernels leave at once."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from billhook.graph.structure import impose_
from billhook.methods.sparse._base import SparseMethod, SparseOutcome, SparseProblem
from billhook.registry import Info

INFO = Info(
    "projects every weight onto its pattern: what is smallest leaves",
    "Han et al., Learning both Weights and Connections, NeurIPS 2015, arXiv:1506.02626",
    notes="needs no data; fine-tune afterwards",
)


@dataclass(frozen=True)
class Magnitude(SparseMethod):
    """The Euclidean projection of all weights, zeros shared out as the problem's allocation says.

    References:
        Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015.
    """

    def run(self, problem: SparseProblem) -> SparseOutcome:
        """Return the structures, and a copy of the network that has them."""
        model = copy.deepcopy(problem.model)
        weights = problem.weights(model)
        structures = problem.by_magnitude(weights)
        impose_(weights, structures)
        return SparseOutcome(structures, model)


ENTRY = Magnitude
