"""`SharedWeights`: candidates are judged with weights that a whole population has trained together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from billhook.graph.graph import make_plan
from billhook.graph.structure import impose_
from billhook.search.objective import Evaluation, Judge, Objective
from billhook.search.shared.network import densest
from billhook.search.sliced import settle_statistics_, sliced
from billhook.search.space import Genes, Space


class SharedWeights(Objective):
    """Candidates take what they keep from one shared network; only batch norms get statistics of their own.

    Args:
        key: See `Objective`.
        space: What genes mean.
        tensors: The shared network's parameters and buffers by name, in full size.
        settling: Inputs from which the statistics of batch norms are measured, as plain averages.
        judge: Measures accuracy and loss.
    """

    def __init__(
        self, key: str, space: Space, tensors: Mapping[str, Tensor], settling: Sequence[Any], judge: Judge
    ) -> None:
        self.key, self.space = key, space
        self._tensors, self._settling, self._judge = dict(tensors), list(settling), judge

    def evaluate(self, genes: Genes) -> Evaluation:
        """Return what one row of genes is worth."""
        began = time.perf_counter()
        graph = self.space.graph
        network = sliced(graph, make_plan(graph, self.space.keep(genes)), self._tensors)
        named = dict(network.named_parameters())
        impose_(named, densest(self.space, genes, named))
        settle_statistics_(network, self._settling)
        accuracy, loss = self._judge(network)
        return Evaluation(accuracy, loss, time.perf_counter() - began)
