"""How little of a layer a search may leave, by what the layer does in the network."""

from __future__ import annotations

from collections.abc import Callable

from billhook.search.space import Gene, Space

# Of the published configuration for ResNet-18; layers that are none of these have bounds of their own.
STEM, STRIDED_CHANNELS, STRIDED_DENSITY, RESIDUAL = 0.8, 0.6, 0.8, 0.9


def least_fractions(
    space: Space, channels: float, density: float, *, protect: bool = False
) -> Callable[[int], float]:
    """Return the function from the number of a gene to the least fraction it may take; see `Bounds.above`.

    Args:
        space: Whose genes.
        channels: Of the units of a group.
        density: Of the weights of a tensor.
        protect: More for the first layer, for layers with a stride and for widths that several layers share
            by adding up their outputs (residual connections).
    References:
        Zhao et al., "Joint Channel and Weight Pruning for Model Acceleration on Mobile Devices", 2021,
        configuration `res18-search.yaml`. arXiv:2110.08013.
    """

    def least(number: int) -> float:
        gene = space.genes[number]
        plain = channels if gene.kind == "channels" else density
        return max(plain, _protected(space, gene)) if protect else plain

    return least


def _protected(space: Space, gene: Gene) -> float:
    layers = {layer.tensor: layer for layer in space.whole.weights}
    first = next(iter(layers), None)
    if gene.kind == "density":
        strided = max(layers[gene.target].stride, default=1) > 1
        return STEM if gene.target == first else STRIDED_DENSITY if strided else 0.0
    group = next(g for g in space.groups if g.id == gene.target)
    makers = {m.tensor for m in group.members if m.role == "out"} & set(layers)
    if first in makers:
        return STEM
    if len(makers) > 1:
        return RESIDUAL
    return STRIDED_CHANNELS if any(max(layers[t].stride, default=1) > 1 for t in makers) else 0.0
