"""Widths that MetaPruning's authors published cost what a count by hand says; so do networks in full width.

Their own numbers also count the elements of batch norms, ReLUs and pools: "2.0 G", "316 M".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from billhook.graph import Graph, capture

IMAGE = torch.zeros(1, 3, 224, 224)
RESNET_50 = [23, 17, 16, 17, 16, 16, 18, 20, 18, 25, 11, 29, 22, 18, 13, 27, 17, 23, 23, 20]
MOBILENET_V1 = [28, 18, 10, 23, 23, 22, 22, 13, 17, 28, 17, 25, 29]


def _width(identity: int, channels: int) -> int:
    """31 widths, 0.10, 0.13, …, 1.00, rounded down."""
    return (10 + 3 * identity) * channels // 100


def _macs(graph: Graph, kept: Mapping[str, int] | None = None) -> float:
    """Return the millions of MACs if groups keep so many units."""
    counts = [(kept or {}).get(g, n) for g, n in zip(graph.costs.group_ids, graph.costs.sizes, strict=True)]
    return float(graph.costs.evaluate(np.array([counts]), ["macs"])["macs"][0]) / 1e6


def _v1_layers() -> Iterator[nn.Module]:
    widths = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
    yield nn.Conv2d(3, 32, 3, 2, 1, bias=False)
    for narrow, wide, stride in zip(widths, widths[1:], strides, strict=False):
        yield nn.Conv2d(narrow, narrow, 3, stride, 1, groups=narrow, bias=False)
        yield nn.Conv2d(narrow, wide, 1, bias=False)
    yield from (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000))


def test_resnet_50(torchvision: ModuleType) -> None:
    graph = capture(torchvision.models.resnet50(), IMAGE)
    stem, stages, middles = RESNET_50[0], RESNET_50[1:4], iter(RESNET_50[4:])
    kept: dict[str, int] = {}
    for group in graph.groups.prunable:
        block, _, layer = group.id.rpartition(".")
        if group.id == "conv1":
            kept[group.id] = _width(stem, group.size)
        elif layer == "conv1":  # both middle widths of a block are one
            kept[group.id] = kept[f"{block}.conv2"] = _width(next(middles), group.size)
        elif layer == "conv3" and not block.startswith("layer4"):  # the last stage stays whole
            kept[group.id] = _width(stages[int(block[5]) - 1], group.size)
    assert _macs(graph) == pytest.approx(4089.2, abs=0.1)
    assert _macs(graph, kept) == pytest.approx(1989.9, abs=0.1)


def test_mobilenet_v1() -> None:
    graph = capture(nn.Sequential(*_v1_layers()), IMAGE)
    widths = [_width(MOBILENET_V1[i - 1], g.size) for i, g in enumerate(graph.groups.prunable[:13])]
    kept = {g.id: n for g, n in zip(graph.groups.prunable, widths, strict=False)}  # the last stays whole
    assert _macs(graph) == pytest.approx(568.7, abs=0.1)
    assert _macs(graph, kept) == pytest.approx(311.7, abs=0.1)


def test_mobilenet_v2(torchvision: ModuleType) -> None:
    assert _macs(capture(torchvision.models.mobilenet_v2(), IMAGE)) == pytest.approx(300.8, abs=0.1)
