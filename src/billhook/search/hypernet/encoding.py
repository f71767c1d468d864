"""What a weight is generated from: the widths of the groups that its axes belong to."""

from __future__ import annotations

from billhook.search.space import Space


def encodings(space: Space) -> dict[str, tuple[int, ...]]:
    """Return the genes that set the size of each convolution's and linear layer's weight.

    Columns as in `space.genes`, those of the weight's first axis first; layers whose sizes no gene sets are
    left out. A layer behind a concatenation reads several groups and has all of them, a depthwise convolution
    has one.

    Differs from the source:
        There the three convolutions of a block share one encoding (middle, input, output); here each layer is
        told of its own channels only.
    """
    column = {gene.target: i for i, gene in enumerate(space.genes) if gene.kind == "channels"}
    parts, found = space.graph.partition, {}
    of_group = [column.get(group.id, -1) for group in parts.groups]
    for layer in space.graph.weights:
        genes: dict[int, None] = {}
        for axis in range(len(layer.shape)):
            labels = parts.axes.get((layer.tensor, axis))
            for group in [] if labels is None else dict.fromkeys(parts.group_of[labels].tolist()):
                if group >= 0 and of_group[group] >= 0:
                    genes[of_group[group]] = None
        if genes:
            found[layer.tensor] = tuple(genes)
    return found
