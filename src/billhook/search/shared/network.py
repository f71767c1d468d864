"""`SharedNetwork`: one set of weights that runs, and is trained, as any candidate of a population."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from billhook.graph import ExportedNetwork
from billhook.graph.constants import Kept
from billhook.graph.graph import make_plan
from billhook.graph.patterns import wide
from billhook.graph.slicing import named_tensors
from billhook.graph.structure import Structure, viewed
from billhook.graph.weights import WeightLayer
from billhook.search.sliced import live_tensors
from billhook.search.space import Genes, Space
from billhook.train import Callback, StepContext


class SharedNetwork(nn.Module):
    """A network in full size that is run as one of several candidates, in training mode too.

    A candidate uses the units of every group that stay longest, so candidates share them; where it is to be
    sparse, it multiplies weights with a mask made from their present values. Batch norms use the statistics
    of the batch, and those that they keep mean nothing: they are measured for each candidate afterwards.

    Args:
        model: Holds the weights; trained in place.
        space: What genes mean; made of a network like `model`.
        rows: The candidates.

    Attributes:
        model: The same.
        chosen: Which candidate it is at the moment.
        masked: False: candidates run dense, whatever their densities are.
    """

    def __init__(self, model: nn.Module, space: Space, rows: Sequence[Genes]) -> None:
        super().__init__()
        self.model = model
        self.chosen, self.masked = 0, False
        self._space = space
        self._rows = [np.asarray(row) for row in rows]
        self._made: dict[int, tuple[Kept, ExportedNetwork]] = {}  # no modules of this one: they own nothing

    def __len__(self) -> int:
        return len(self._rows)

    def tensors(self) -> dict[str, Tensor]:
        """Return the parameters and buffers of the shared network by their first names."""
        shapes = self._space.graph.program.shapes
        return {name: tensor for name, tensor in named_tensors(self.model) if name in shapes}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run as the chosen candidate."""
        tensors = self.tensors()
        kept, network = self._candidate(self.chosen, tensors)
        used = live_tensors(tensors, kept)
        if self.masked:
            found = densest(self._space, self._rows[self.chosen], used)
            for name, structure in found.items():
                used[name] = used[name] * structure.mask.to(used[name])
        if network.training != self.training:
            network.train(self.training)
        return functional_call(network, used, args, kwargs)

    def _candidate(self, number: int, tensors: Mapping[str, Tensor]) -> tuple[Kept, ExportedNetwork]:
        """Return what a candidate keeps, and its graph, which is given weights when it is run."""
        if number not in self._made:
            graph = self._space.graph
            kept = graph.kept(make_plan(graph, self._space.keep(self._rows[number])))
            stand_ins = {name: tensor.detach() for name, tensor in live_tensors(tensors, kept).items()}
            network = ExportedNetwork(graph.program, stand_ins, kept)
            device = next(iter(tensors.values())).device
            self._made[number] = kept, network.to(device).eval()
        return self._made[number]


class Sampling(Callback):
    """Lets a `SharedNetwork` be another candidate at every step, each as likely.

    Which one follows from the seed and the step alone, so an interrupted run resumes exactly.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_step(self, context: StepContext) -> None:
        """Choose the candidate of this step."""
        network = context.model
        assert isinstance(network, SharedNetwork)
        network.chosen = int(np.random.default_rng([self.seed, context.step]).integers(len(network)))


def densest(space: Space, genes: Genes, tensors: Mapping[str, Tensor]) -> dict[str, Structure]:
    """Return which weights a candidate keeps where its density is below 1: those of the largest L1 norms.

    Args:
        space: What genes mean.
        genes: One row.
        tensors: What the candidate keeps of each tensor, by name.
    References:
        Zhao et al., "Joint Channel and Weight Pruning for Model Acceleration on Mobile Devices", 2021,
        section 3.3. arXiv:2110.08013 (norms over groups of 4 channels, the pattern "4x1").
    Differs from the source:
        Any pattern. Groups are those of the slice; if its channels are no multiple of 4, the last is smaller.
    """
    chosen = space.values(genes)[0][len(space.groups) :]
    return {
        layer.tensor: _densest(layer, space, tensors[layer.tensor], float(density))
        for layer, density in zip(space.layers, chosen, strict=True)
        if density < 1
    }


@torch.no_grad()
def _densest(layer: WeightLayer, space: Space, weight: Tensor, density: float) -> Structure:
    pattern = space.patterns[layer.tensor]
    view = wide(viewed(weight.detach(), transposed=layer.transposed)).abs()
    low, high = pattern.sparsities((view.shape[0], view.shape[1], view.shape[2]))
    parts = pattern.select(view, pattern.units_for(view, min(max(1 - density, low), high)))
    return Structure(pattern, tuple(weight.shape), parts, layer.transposed)
