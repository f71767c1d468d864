from __future__ import annotations

import numpy as np
import torch
from torch import nn

from billhook.graph import Graph, capture
from billhook.graph.patterns import parse_pattern
from billhook.search.agents.features import FEATURES, LAST, REDUCED, features_of
from billhook.search.costs import SearchCosts
from billhook.search.space import Space

T, N, C, H, W, STRIDE, K, COST, REST = (
    FEATURES.index(name) for name in ("t", "n", "c", "h", "w", "stride", "k", "cost", "rest")
)


def small() -> Graph:
    """8x8 images: a 3x3 convolution (3 to 8), a depthwise one, a 1x1 of stride 2 (8 to 16), a classifier."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.Conv2d(8, 16, 1, stride=2, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4, bias=False),
    )
    return capture(net, torch.zeros(1, 3, 8, 8))


def channel_space(graph: Graph) -> Space:
    groups = [g for g in graph.groups if g.prunable]
    return Space(
        graph, {g.id: (g.size // 4, g.size) for g in groups}, {g.id: np.arange(g.size) for g in groups}
    )


def test_a_channel_gene_is_seen_as_the_first_layer_that_reads_its_group() -> None:
    space = channel_space(small())
    found = features_of(space, SearchCosts(space), "macs")
    assert found.order.tolist() == [0, 1]
    # The 1x1 convolution (n 16, c 8, 4x4 pixels, stride 2) and the classifier (n 4, c 16): all else is equal.
    np.testing.assert_array_equal(found.table[:, T], [0, 1])
    np.testing.assert_array_equal(found.table[:, N], [1, 0])
    np.testing.assert_array_equal(found.table[:, C], [0, 1])
    np.testing.assert_array_equal(found.table[:, [H, W, STRIDE]], [[1, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(found.table[:, K], [0, 0])


def test_costs_are_what_a_gene_and_those_after_it_can_save() -> None:
    space = channel_space(small())
    first, depthwise, pointwise, last = 64 * 8 * 27, 64 * 8 * 9, 16 * 16 * 8, 16 * 4
    whole = first + depthwise + pointwise + last
    saved = [0.75 * (first + depthwise + pointwise), 0.75 * (pointwise + last)]
    found = features_of(space, SearchCosts(space), "macs")
    assert found.table[0, COST] == 1  # scaled: the larger
    assert found.table[1, COST] == 0
    np.testing.assert_allclose(found.table[:, REST], [saved[1] / whole, 0])


def test_the_channels_of_a_layer_come_before_its_density() -> None:
    graph = small()
    groups = [g for g in graph.groups if g.prunable]
    tensors = ("2.weight", "5.weight")
    space = Space(
        graph,
        {g.id: (2, g.size) for g in groups},
        {g.id: np.arange(g.size) for g in groups},
        {t: (0.5, 1.0) for t in tensors},
        {t: parse_pattern("unstructured") for t in tensors},
    )
    found = features_of(space, SearchCosts(space), "macs")
    names = [space.genes[g].name for g in found.order]
    assert names == ["channels 0", "density 2.weight", "channels 2", "density 5.weight"]


def test_fine_grained_genes_are_seen_as_their_own_layers() -> None:
    graph = small()
    tensors = ("0.weight", "2.weight")
    patterns = {t: parse_pattern("unstructured") for t in tensors}
    space = Space(graph, {}, {}, {t: (0.5, 1.0) for t in tensors}, patterns)
    found = features_of(space, SearchCosts(space), "macs")
    np.testing.assert_array_equal(found.table[:, K], [1, 0])
    np.testing.assert_array_equal(found.table[:, C], [0, 1])


def test_all_are_from_0_to_1_and_the_dynamic_ones_are_left_open() -> None:
    space = channel_space(small())
    for metric in ("macs", "params", "size"):
        table = features_of(space, SearchCosts(space), metric).table
        assert table.min() >= 0
        assert table.max() <= 1
        assert not table[:, [REDUCED, LAST]].any()
