"""Fold a small network and compare, for the tests of folding passes."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from billhook.fuse.fuse import run_passes
from billhook.fuse.options import Fusion
from billhook.graph.alive import enliven_
from billhook.graph.fusions import as_layers
from billhook.graph.graph import cost
from billhook.graph.inputs import as_call
from billhook.graph.layers import LayeredNetwork


@dataclass(frozen=True)
class Folded:
    """What folding made of a network.

    Attributes:
        network: The result.
        held: (operator, place) of every rewrite, in order.
        refused: Place → why.
        original, inputs: What was folded.
    """

    network: LayeredNetwork
    held: list[tuple[str, str]]
    refused: dict[str, str]
    original: nn.Module
    inputs: Tensor

    def macs(self) -> tuple[int, int]:
        """Return multiplications before and after, for one batch."""
        return cost(self.original, self.inputs).macs, cost(self.network, self.inputs).macs

    def count(self, *kinds: type[nn.Module]) -> int:
        """Return how many layers of some kinds are left."""
        return sum(isinstance(m, kinds) for m in self.network.modules())


def fold(model: nn.Module, x: Tensor, *operators: str) -> Folded:
    """Return `model` folded, with random weights; it must compute the same for several batch sizes."""
    enliven_(model.state_dict())
    network = as_layers(model, as_call(x))
    held, refused = run_passes(network, as_call(x), Fusion(operators=operators), "fold")
    # In double precision, so that rounding of what cancels out is no difference.
    before, after = copy.deepcopy(model).eval().double(), copy.deepcopy(network).eval().double()
    for batch in (x, x[:1], torch.cat((x, -x))):
        expected, got = before(batch.double()), after(batch.double())
        assert got.shape == expected.shape
        assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    places = [(s.operator, s.at) for _, s in held]
    return Folded(network, places, {r.at: r.why for _, r in refused}, model, x)
