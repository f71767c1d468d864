"""Unstructured: every weight may leave on its own."""

from __future__ import annotations

from dataclasses import dataclass

from billhook.graph.patterns import Shape
from billhook.registry import Info
from billhook.sparse.patterns._blocks import Blocks

INFO = Info(
    "single weights, wherever they are",
    "Zhang et al., A Systematic DNN Weight Pruning Framework using ADMM, ECCV 2018, arXiv:1804.03294",
    notes="the most accurate at a given number of zeros, and the hardest to make fast",
)


@dataclass(frozen=True)
class Unstructured(Blocks):
    """Units are single weights: the projection keeps the ⌈(1 - s) n⌉ of the largest magnitude.

    References:
        Zhang et al., "A Systematic DNN Weight Pruning Framework using Alternating Direction Method of
        Multipliers", ECCV 2018, section 3. arXiv:1804.03294.
    """

    single = True

    def block(self, shape: Shape) -> Shape:
        """Return a single weight."""
        return 1, 1, 1


ENTRY = Unstructured
