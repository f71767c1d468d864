"""`SparseProblem` and `SparseMethod`: what an algorithm that picks weights is given, and what it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from billhook.criteria._base import Loss, cross_entropy
from billhook.graph import ExampleInputs, Graph, capture
from billhook.graph.patterns import Pattern, wide
from billhook.graph.structure import Structure, viewed
from billhook.graph.weights import WeightLayer
from billhook.options import Configurable
from billhook.sparse.allocation import allocate, reachable
from billhook.train import EpochRecord, FitConfig


@dataclass(frozen=True, eq=False)
class SparseProblem:
    """Whose weights shall become zero or equal, and how many.

    Attributes:
        model: The network, its channels as they shall be; nobody may change it.
        example_inputs: One batch as the model takes it.
        patterns: Which weights may leave together, by the name of a weight; other weights stay as they are.
        sparsity: Fraction of all weights in `patterns` that shall be zero.
        allocation: How zeros are shared out between tensors, see `billhook.sparse.allocation`; None leaves it
            to the method ("lamp", or "global" where a paper has one threshold for all scores).
        sparsities: Fraction of zeros by the name of a weight, for those who have shared them out already.
        kept: Structures that other weights of the network have already, and keep.
        data, loss, seed, training, checkpoint_dir, resume, progress: As in `Problem`.
        captured: The graph of `model`, if there is one already.
    """

    model: nn.Module
    example_inputs: ExampleInputs
    patterns: Mapping[str, Pattern]
    sparsity: float
    allocation: str | None = None
    sparsities: Mapping[str, float] | None = None
    kept: Mapping[str, Structure] = field(default_factory=dict)
    data: Any = None
    loss: Loss = cross_entropy
    seed: int = 0
    training: FitConfig | None = None
    checkpoint_dir: Path | None = None
    resume: bool = False
    progress: bool = False
    captured: Graph | None = None

    @cached_property
    def graph(self) -> Graph:
        """The captured network."""
        return self.captured or capture(self.model, self.example_inputs)

    @cached_property
    def layers(self) -> Mapping[str, WeightLayer]:
        """The layers whose weights may leave, by the name of the weight."""
        return {layer.tensor: layer for layer in self.graph.weights if layer.tensor in self.patterns}

    def on(self, model: nn.Module) -> SparseProblem:
        """Return the same problem for `model`, which is built like the present one."""
        return replace(self, model=model, captured=self.graph)

    def partly(self, progress: float) -> SparseProblem:
        """Return the problem on the way to this one: patterns that come in stages are in an earlier one."""
        found = {name: pattern.partly(progress) for name, pattern in self.patterns.items()}
        stages = {name: pattern for name, pattern in found.items() if pattern is not None}
        return self if stages == self.patterns else replace(self, patterns=stages, captured=self.graph)

    def views(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors in scope as [outputs, inputs, positions], in float32 at least."""
        return {
            name: wide(viewed(tensors[name].detach(), transposed=layer.transposed))
            for name, layer in self.layers.items()
        }

    def weights(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Return the weights in scope of a network that is built like the problem's."""
        named = dict(model.named_parameters(remove_duplicate=False))
        return {name: named[name] for name in self.layers}

    def energies(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the squares of the tensors in scope, [outputs, inputs, positions]."""
        return {name: view.square() for name, view in self.views(tensors).items()}

    def shares_of(self, tensors: Mapping[str, Tensor], progress: float = 1.0) -> dict[str, float]:
        """Return the fraction of zeros of every tensor, shared out by magnitude; see `share_out`."""
        return self.share_out(self.energies(tensors), progress)

    def share_out(self, energies: Mapping[str, Tensor], progress: float = 1.0) -> dict[str, float]:
        """Return the fraction of zeros of every tensor.

        Args:
            energies: Of the weights, [outputs, inputs, positions] by tensor.
            progress: How far the sparsity has come from what the patterns need at least to what is wanted.
        """
        if self.sparsities is not None:
            return {name: progress * s for name, s in self.sparsities.items()}
        wanted = self.sparsity
        if progress < 1:
            least, most = reachable({n: layer.view for n, layer in self.layers.items()}, self.patterns)
            wanted = min(most, max(least, progress * wanted))
        return allocate(energies, self.patterns, wanted, self.allocation or "lamp")

    @torch.no_grad()
    def by_magnitude(
        self, tensors: Mapping[str, Tensor], sparsities: Mapping[str, float] | None = None
    ) -> dict[str, Structure]:
        """Return the structures nearest to the tensors; `sparsities` as from `share_out`, or as it would."""
        shares = sparsities or self.shares_of(tensors)
        return {
            name: nearest(layer, self.patterns[name], tensors[name], shares[name])
            for name, layer in self.layers.items()
        }

    @torch.no_grad()
    def by_energy(self, energies: Mapping[str, Tensor], progress: float = 1.0) -> dict[str, Structure]:
        """Return the structures that keep the most energy, given per weight in the shape of the tensors."""
        views = self.views(energies)
        shares = self.share_out(views, progress)
        found = {}
        for name, view in views.items():
            pattern = self.patterns[name]
            layer, parts = self.layers[name], pattern.select(view, pattern.units_for(view, shares[name]))
            found[name] = Structure(pattern, layer.shape, parts, layer.transposed)
        return found


def nearest(layer: WeightLayer, pattern: Pattern, weight: Tensor, sparsity: float) -> Structure:
    """Return the structure of a layer that is nearest to its weight, with this fraction of zeros."""
    view = wide(viewed(weight.detach(), transposed=layer.transposed))
    parts = pattern.choose(view, pattern.units_for(view.square(), sparsity))
    return Structure(pattern, layer.shape, parts, layer.transposed)


@dataclass(frozen=True, eq=False)
class SparseOutcome:
    """What a sparse method decided, and the network that has it.

    Attributes:
        structures: By the name of a weight.
        model: A copy of the problem's network whose weights have the structures.
        history: One record for each epoch that the method trained.
        log: What the method noted on its way, for tables and pictures.
    """

    structures: Mapping[str, Structure]
    model: nn.Module
    history: tuple[EpochRecord, ...] = ()
    log: tuple[Mapping[str, float], ...] = field(default=())


@dataclass(frozen=True)
class SparseMethod(Configurable, ABC):
    """Decides which weights stay; a subclass is a frozen dataclass whose fields are its options."""

    @abstractmethod
    def run(self, problem: SparseProblem) -> SparseOutcome:
        """Return structures, and a network that has them; the problem's model is left untouched."""
