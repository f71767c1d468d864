"""Clusters of units: k-means on their filters, the mean of a cluster, and channel addition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from billhook.criteria._members import unit_rows
from billhook.graph import Graph
from billhook.graph.groups import ChannelGroup, Member
from billhook.graph.rules._base import bind


def filters(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return what makes and passes on every unit, as one long centred row each: [size, d], float64.

    Weights only: biases and norms of a cluster become equal as well, but say little about likeness.
    """
    members = [m for m in group.members if m.role != "in" and tensors[m.tensor].is_floating_point()]
    members = [m for m in members if tensors[m.tensor].dim() > 1] or members
    rows = torch.cat([unit_rows(tensors[m.tensor], m).double() for m in members], 1)
    return rows - rows.mean(0)


def kmeans(
    gram: Tensor,
    clusters: int,
    generator: torch.Generator,
    *,
    start: Tensor | None = None,
    restarts: int = 10,
    iterations: int = 100,
) -> Tensor:
    """Return the cluster of every row, of exactly `clusters` clusters, none of them empty: [n].

    Lloyd's algorithm on inner products: a squared distance to a centroid is
    ⟨x, x⟩ − 2 · mean ⟨x, x_j⟩ + mean ⟨x_j, x_k⟩ over the cluster. An iteration costs n², whatever the
    length of the filters. A cluster that loses all members takes the row that is worst off.

    Args:
        gram: Inner products of the rows; [n, n], float64.
        clusters: How many.
        generator: Draws the first centroids (k-means++).
        start: Clusters to go on from instead of drawing.
        restarts: Draws; the one with the smallest sum of squared distances counts, the first among equals.
        iterations: Of every draw at most.
    References:
        Arthur, Vassilvitskii, "k-means++", SODA 2007.
    """
    if start is not None:
        return _lloyd(gram, start, clusters, iterations)[0]
    runs = (
        _lloyd(gram, _plus_plus(gram, clusters, generator), clusters, iterations) for _ in range(restarts)
    )
    return min(runs, key=lambda run: run[1])[0]


def _lloyd(gram: Tensor, labels: Tensor, clusters: int, iterations: int) -> tuple[Tensor, float]:
    """Return clusters that no single move improves any more, and their sum of squared distances."""
    for _ in range(iterations):
        distances = squared_distances(gram, labels, clusters)
        new = _fill_empty(distances, distances.argmin(1), clusters)
        if torch.equal(new, labels):
            break
        labels = new
    own = squared_distances(gram, labels, clusters).gather(1, labels[:, None])
    return labels, float(own.clamp_min(0).sum())


def squared_distances(gram: Tensor, labels: Tensor, clusters: int) -> Tensor:
    """Return squared distances of all rows to all centroids: [n, clusters]."""
    sizes = torch.bincount(labels, minlength=clusters).double()
    to_mean = gram.new_zeros(len(gram), clusters).index_add_(1, labels, gram) / sizes
    of_mean = gram.new_zeros(clusters, clusters).index_add_(0, labels, to_mean).diagonal() / sizes
    return gram.diagonal()[:, None] - 2 * to_mean + of_mean


def _fill_empty(distances: Tensor, labels: Tensor, clusters: int) -> Tensor:
    """Give every empty cluster the row that is furthest from its own centroid."""
    far = distances.gather(1, labels[:, None])[:, 0]
    sizes = torch.bincount(labels, minlength=clusters)
    for empty in (sizes == 0).nonzero()[:, 0].tolist():
        row = int(torch.where(sizes[labels] > 1, far, -torch.inf).argmax())
        sizes[labels[row]] -= 1
        sizes[empty] += 1
        labels[row], far[row] = empty, -torch.inf
    return labels


def _plus_plus(gram: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Return clusters around rows drawn one by one, in proportion to the squared distance to the nearest."""
    norms = gram.diagonal()
    chosen = [int(torch.randint(len(gram), (1,), generator=generator))]
    nearest = torch.full_like(norms, torch.inf)
    for _ in range(clusters):
        last = chosen[-1]
        nearest = nearest.minimum((norms + norms[last] - 2 * gram[last]).clamp_min(0))
        nearest[chosen] = 0
        if len(chosen) == clusters:
            break
        left = torch.ones_like(norms)
        left[chosen] = 0
        odds = nearest if float(nearest.sum()) > 0 else left  # only copies of the chosen are left
        chosen.append(int(torch.multinomial(odds, 1, generator=generator)))
    picked = torch.tensor(chosen)
    labels = (norms[picked] - 2 * gram[:, picked]).argmin(1)
    labels[picked] = torch.arange(clusters)
    return labels


def merged_clusters(gram: Tensor, labels: Tensor, clusters: int) -> Tensor:
    """Return `labels` with the cheapest pairs of clusters joined until `clusters` are left (Ward).

    Joining A and B raises the sum of squared distances by |A| |B| / (|A| + |B|) times the squared distance of
    their centroids.
    """
    labels = _representatives(labels)[1]
    count = int(labels.max()) + 1
    sizes = torch.bincount(labels).double()
    sums = gram.new_zeros(count, len(gram)).index_add_(0, labels, gram)
    inner = gram.new_zeros(count, count).index_add_(1, labels, sums) / sizes / sizes[:, None]
    there = torch.ones(count, dtype=torch.bool)
    norms = inner.diagonal()
    weight = sizes[:, None] * sizes / (sizes[:, None] + sizes)
    cost = (weight * (norms[:, None] + norms - 2 * inner)).fill_diagonal_(torch.inf)
    for _ in range(count - clusters):
        a, b = sorted(divmod(int(cost.argmin()), count))
        share = sizes[a] / (sizes[a] + sizes[b])
        inner[a] = share * inner[a] + (1 - share) * inner[b]
        inner[:, a] = share * inner[:, a] + (1 - share) * inner[:, b]
        sizes[a] += sizes[b]
        there[b] = False
        row = sizes[a] * sizes / (sizes[a] + sizes) * (norms + norms[a] - 2 * inner[a])
        row = row.masked_fill(~there, torch.inf).index_fill(0, torch.tensor(a), torch.inf)
        cost[a], cost[:, a] = row, row
        cost[b], cost[:, b] = torch.inf, torch.inf
        labels = torch.where(labels == b, a, labels)
    return _representatives(labels)[1]


@torch.no_grad()
def average_(places: Iterable[tuple[Tensor, Member]], labels: Tensor) -> None:
    """Replace the slices of every unit by the mean over its cluster, in place.

    Args:
        places: Tensors with the member that says which indices are whose.
        labels: Cluster of every unit: [size].
    """
    first, inverse = _representatives(labels)
    sizes = torch.bincount(inverse)
    for tensor, member in places:
        index = torch.tensor(member.index, device=tensor.device)
        rows = tensor.movedim(member.axis, 0)  # a view
        flat = rows[index.flatten()].reshape(*index.shape, *rows.shape[1:])
        where, count = inverse.to(tensor.device), sizes.to(tensor.device)
        total = flat.new_zeros(len(first), *flat.shape[1:]).index_add_(0, where, flat)
        mean = total / count.view(-1, *[1] * (total.dim() - 1)).to(total)
        rows[index.flatten()] = mean[where].flatten(0, 1)


@torch.no_grad()
def add_channels_(group: ChannelGroup, tensors: Mapping[str, Tensor], labels: Tensor) -> None:
    """Let readers read the first unit of every cluster with the sum of all members' weights, in place.

    The others are then read with zeros, so that nothing changes when they leave.
    """
    first, inverse = _representatives(labels)
    for member in group.members:
        tensor = tensors[member.tensor]
        if member.role != "in" or not tensor.is_floating_point():
            continue
        index = torch.tensor(member.index, device=tensor.device)
        rows = tensor.movedim(member.axis, 0)
        flat = rows[index.flatten()].reshape(*index.shape, *rows.shape[1:])
        total = flat.new_zeros(len(first), *flat.shape[1:]).index_add_(0, inverse.to(tensor.device), flat)
        rows[index.flatten()] = 0
        rows[index[first.to(tensor.device)].flatten()] = total.flatten(0, 1)


def _representatives(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first unit of every cluster, and every unit's position among the clusters."""
    _, first, inverse = np.unique(labels.numpy(), return_index=True, return_inverse=True)
    return torch.from_numpy(first), torch.from_numpy(inverse)


def mergeable(graph: Graph, tensors: Mapping[str, Tensor]) -> frozenset[str]:
    """Return the groups whose channels are made and read by weights only, so that equal ones can be added up.

    Left out are groups that a product of activations consumes (queries and keys), those that pass through an
    operator which mixes channels (layer norm), and those that are picked by number (channel selection).
    """
    flow, parts = graph.flow, graph.partition
    reading = {name for (name, _), role in flow.roles.items() if role == "in"}
    consumed: set[int] = set()
    weighed: set[int] = set()
    for node, silencers in flow.silencers.items():
        by_weight = any(flow.tensor_name(operand) in reading for operand in bind(node).operands)
        for silencer in silencers:
            found = {int(g) for g in parts.group_of[silencer.labels].flatten() if g >= 0}
            (weighed if by_weight else consumed).update(found)
    return frozenset(
        g.id
        for i, g in enumerate(parts.groups)
        if i in weighed and i not in consumed and g.mixed is None and _made_and_read(g, tensors)
    )


def _made_and_read(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> bool:
    made = [tensors[m.tensor].is_floating_point() for m in group.members if m.role == "out"]
    return bool(made) and all(made) and any(m.role == "in" for m in group.members)
