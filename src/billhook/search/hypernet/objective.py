"""`GeneratedWeights`: candidates get the weights that a PruningNet generates for their widths."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from billhook.graph import make_plan
from billhook.search.hypernet.network import PruningNet
from billhook.search.objective import Evaluation, Judge, Objective
from billhook.search.problem import SearchProblem
from billhook.search.sliced import settle_statistics_, sliced
from billhook.search.space import Genes
from billhook.train.batches import unpack
from billhook.train.placement import device_of, to_device


class GeneratedWeights(Objective):
    """Judges candidates with generated weights; statistics of batch norms are measured for each of them.

    Args:
        problem: The data, and how candidates are judged.
        network: The trained PruningNet.
        key: Names the network and its training.
    """

    def __init__(self, problem: SearchProblem, network: PruningNet, key: str) -> None:
        self.key = key
        self._network = network.eval().requires_grad_(False)
        self._judge = Judge(problem.judged_on, problem.loss, problem.model)
        device = device_of(problem.model)
        self._settling: list[Any] = [to_device(unpack(b)[0], device) for b in problem.calibration()]

    @torch.no_grad()
    def evaluate(self, genes: Genes) -> Evaluation:
        """Return what one row of genes is worth."""
        began = time.perf_counter()
        space = self._network.space
        plan = make_plan(space.graph, space.keep(genes))
        network = sliced(space.graph, plan, self._network.tensors(genes))
        settle_statistics_(network, self._settling)
        accuracy, loss = self._judge(network)
        return Evaluation(accuracy, loss, time.perf_counter() - began)

    @torch.no_grad()
    def tensors(self, genes: Genes) -> Mapping[str, Tensor]:
        """Return what is generated for a candidate, and what is not generated, in full size by name."""
        return {name: tensor.detach() for name, tensor in self._network.tensors(genes).items()}
