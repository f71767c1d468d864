"""Sizes of weights by formula are those of the weights that are left."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from billhook.graph import apply, capture
from billhook.graph.graph import Graph
from billhook.graph.weight_shapes import WeightShapes
from tests.networks import NETWORKS, build
from tests.oracle import random_plan
from tests.residual import residual


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_macs_and_numbers_are_those_of_the_smaller_network(name: str) -> None:
    model, inputs = build(name)
    graph = capture(model, inputs)
    _compare(graph, model, inputs)


def test_groups_leave_a_transposed_convolution_together() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 12, 1), nn.ConvTranspose2d(12, 24, 2, stride=2, groups=12), nn.Conv2d(24, 5, 1)
    )
    graph = capture(model, torch.zeros(1, 3, 4, 4))
    _compare(graph, model, torch.zeros(1, 3, 4, 4))
    shapes = WeightShapes(graph)
    assert shapes.depends(0) == (frozenset({0}), frozenset())
    assert shapes.depends(1) == (frozenset({0}), frozenset())
    assert shapes.depends(2) == (frozenset(), frozenset({0}))


def test_a_layer_of_a_branch_that_is_gone_has_no_weights() -> None:
    model, x = residual("bottleneck")
    costs = capture(model, x).costs
    counts = costs.sizes.copy()
    counts[costs.group_ids.index("layer1.1.conv1")] = 0
    macs, numbers = costs.of_weights(counts, ["layer1.1.conv3.weight", "layer1.0.conv3.weight"])
    assert macs[0, 0] == numbers[0, 0] == 0
    assert macs[0, 1] > 0 < numbers[0, 1]


def _compare(graph: Graph, model: nn.Module, inputs: torch.Tensor) -> None:
    plan = random_plan(graph)
    small = capture(apply(model, plan), inputs)
    left = {layer.tensor: layer for layer in small.weights}
    shapes = WeightShapes(graph).of(np.stack([graph.costs.counts(plan), graph.costs.sizes]))
    macs, numbers = graph.costs.of_weights(graph.costs.counts(plan), [la.tensor for la in graph.weights])
    for at, layer in enumerate(graph.weights):
        for row, told in enumerate((left[layer.tensor], layer)):
            found = shapes.outputs[row, at], shapes.inputs[row, at], shapes.groups[row, at]
            assert found == (told.view[0], told.view[1], told.groups)
        now = left[layer.tensor]
        assert numbers[0, at] == np.prod(now.shape)
        if layer.positions == now.positions:
            assert macs[0, at] == now.macs
