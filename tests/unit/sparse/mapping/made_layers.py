"""Layers as `Graph.weights` gives them, without a network."""

from __future__ import annotations

from billhook.graph.weights import WeightLayer
from billhook.sparse.mapping import LatencyTable


def conv(
    name: str, outputs: int, inputs: int, kernel: int = 3, *, pixels: int = 3136, groups: int = 1
) -> WeightLayer:
    shape = (outputs, inputs // groups, kernel, kernel)
    return WeightLayer(f"{name}.weight", name, "conv", shape, (kernel, kernel), (1, 1), groups, False, pixels)


def linear(name: str, outputs: int, inputs: int) -> WeightLayer:
    return WeightLayer(f"{name}.weight", name, "linear", (outputs, inputs))


def vgg_16() -> list[WeightLayer]:
    """VGG-16 for images of 224 × 224."""
    layers, inputs = [], 3
    for block, (outputs, count) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
        for i in range(count):
            layers.append(conv(f"conv{block}.{i}", outputs, inputs, pixels=(224 >> block) ** 2))
            inputs = outputs
    sizes = [(4096, 25088), (4096, 4096), (1000, 4096)]
    return layers + [linear(f"fc{i}", *size) for i, size in enumerate(sizes)]


def table(**relative: list[float]) -> LatencyTable:
    """One MAC per second if dense; for all kinds the same relative times at 0, 50 and 100 % of zeros."""
    times = {"rows_1": [2, 1, 0], "coarse": [1, 0.5, 0], "kernel": [2, 1, 0], **relative}
    kinds = {
        name: {"macs_per_second": 1, "times": {} if name == "depthwise" else times}
        for name in ("conv_1x1", "conv_3x3", "conv", "linear", "depthwise")
    }
    return LatencyTable.from_dict(
        {
            "format": "billhook.latency_table/1",
            "layer_seconds": 0,
            "bytes_per_second": 1e9,
            "sparsity": [0, 0.5, 1],
            "kinds": kinds,
        }
    )
