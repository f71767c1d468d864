"""Widen a network and compare, for the tests of widening passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from billhook.fuse.fuse import Fused, fuse
from billhook.fuse.options import Fusion
from billhook.graph.alive import enliven_
from billhook.graph.graph import cost


def widen(model: nn.Module, x: Tensor, **options: Any) -> Fused:
    """Return `model` widened, with random weights and statistics; it must compute the same.

    Numbers are in double precision: what differs is a mistake then, not rounding.
    """
    enliven_(model.state_dict())
    model, x = model.eval().double(), x.double()
    made = fuse(model, x, Fusion(**options))
    made.network.eval()
    with torch.no_grad():
        for batch in (x, x[:1], torch.cat((x, -x))):
            expected, got = model(batch), made.network(batch)
            assert got.shape == expected.shape
            assert (got - expected).abs().max() <= 1e-9 * expected.abs().max()
    return made


def places(made: Fused, name: str) -> list[str]:
    """Return where a pass held."""
    return [site.at for n, site in made.held if n == name]


def reasons(made: Fused) -> dict[str, str]:
    """Return place → why it was refused."""
    return {refusal.at: refusal.why for _, refusal in made.refused}


def additions(made: Fused) -> int:
    """Return how many sums are left."""
    return sum(n.target is torch.ops.aten.add.Tensor for n in made.network.graph.nodes)


def growth(made: Fused, model: nn.Module, x: Tensor) -> float:
    """Return MACs after widening, as a multiple of those before."""
    return cost(made.network, x.double()).macs / cost(model, x.double()).macs
