#!/usr/bin/env python3
"""The table of latencies that mappings use where layers are not timed, from timings of billhook's engine.

    python benchmarks/latency_table.py                 # some minutes; writes sparse/mapping/table.json
    python benchmarks/latency_table.py --out mine.json # of another machine: pattern="rules:times=mine.json"

Every convolution and linear layer of ResNet-50, VGG-16 and MobileNetV2 (images of 224 pixels), and the large
windows of AlexNet, is timed in the engine with every class of patterns and at every sparsity, relative to the
same layer without zeros in the same engine. A kind of layer takes the geometric mean over networks of the
time of all its layers, each as often as it occurs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import billhook  # noqa: E402
from billhook.compile.layer_latency import GRID, TimedLayers  # noqa: E402
from billhook.compile.library import isas  # noqa: E402
from billhook.graph.patterns import parse_pattern  # noqa: E402
from billhook.graph.weights import WeightLayer  # noqa: E402
from billhook.json_record import write_json  # noqa: E402
from billhook.measure.environment import environment  # noqa: E402
from billhook.sparse.mapping import LatencyTable  # noqa: E402
from billhook.sparse.mapping.latency_table import KINDS, kind_of  # noqa: E402
from tests.torchvision_ops import declare  # noqa: E402

TABLE = ROOT / "src" / "billhook" / "sparse" / "mapping" / "table.json"
NETWORKS = ("resnet50", "vgg16", "mobilenet_v2")
LARGE_WINDOWS = "alexnet"  # has the only ones besides stems
CLASSES = {
    "rows_8": "8x1",
    "rows_4": "4x1",
    "rows_1": "unstructured",
    "kernel": "kernel_pattern",
    "coarse": "filter",
}
SPARSITY = (0.0, 0.1, 0.2, 0.3, 0.4, *GRID)
LARGEST = 1 << 24  # weights: a layer that certainly comes from memory

Times = dict[tuple[str, str], dict[str, list[list[float]]]]  # kind, class → network → layers × sparsities


def layers_of(name: str) -> Sequence[WeightLayer]:
    """Return the layers of a network of torchvision."""
    model = importlib.import_module("torchvision.models").get_model(name, weights=None).eval()
    layers = billhook.capture(model, torch.randn(1, 3, 224, 224)).weights
    return [la for la in layers if kind_of(la) == "conv"] if name == LARGE_WINDOWS else layers


def timed(networks: dict[str, Sequence[WeightLayer]], repeat: int) -> Times:
    """Return the seconds of all layers: the least of several times, each from scratch."""
    found: Times = {}
    for number in range(repeat):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = folder  # nothing that was timed before counts
            again = _timed_once(networks)
        print(f"timed {number + 1} of {repeat}", file=sys.stderr, flush=True)
        found = again if not found else _least(found, again)
    return found


def _timed_once(networks: dict[str, Sequence[WeightLayer]]) -> Times:
    found: Times = {}
    for network, layers in networks.items():
        model = TimedLayers(layers)
        for layer in layers:
            kind = kind_of(layer)
            dense = found.setdefault((kind, "dense"), {}).setdefault(network, [])
            dense.append([model.latency(layer, None, 0.0)])
            for name, text in CLASSES.items():
                pattern = parse_pattern(text)
                if kind == "depthwise" or layer.refusal(pattern) is not None:
                    continue
                rows = found.setdefault((kind, name), {}).setdefault(network, [])
                rows.append([model.latency(layer, pattern, s) for s in SPARSITY])
    return found


def _least(a: Times, b: Times) -> Times:
    return {key: {n: np.minimum(t, b[key][n]).tolist() for n, t in each.items()} for key, each in a.items()}


def relative(networks: dict[str, list[list[float]]]) -> list[float]:
    """Return the times at all sparsities and, along the line through the last two, at 1, over dense."""
    sums = np.array([np.sum(layers, axis=0) for layers in networks.values()])
    means = np.exp(np.log(sums / sums[:, :1]).mean(axis=0))
    slope = (means[-1] - means[-2]) / (SPARSITY[-1] - SPARSITY[-2])
    last = max(0.0, means[-1] + (1 - SPARSITY[-1]) * slope)
    return [round(float(t), 4) for t in np.minimum.accumulate([*means, last])]


def table(networks: dict[str, Sequence[WeightLayer]], times: Times, conditions: str) -> dict[str, Any]:
    """Return the table as plain data."""
    smallest = WeightLayer("a", "a", "conv", (8, 8, 1, 1), (1, 1), (1, 1), 1, False, 64, plane=(8, 8))
    kinds = {}
    for kind in KINDS:
        macs = sum(la.macs for layers in networks.values() for la in layers if kind_of(la) == kind)
        seconds = float(sum(np.sum(t) for t in times[kind, "dense"].values()))
        relatives = {c: relative(times[kind, c]) for c in CLASSES if (kind, c) in times}
        kinds[kind] = {"macs_per_second": float(f"{macs / seconds:.3g}"), "times": relatives}
    large = [
        4 * la.macs / dense[0]
        for network, layers in networks.items()
        for la, dense in zip(
            [la for la in layers if kind_of(la) == "linear"],
            times["linear", "dense"].get(network, []),
            strict=True,
        )
        if la.macs >= LARGEST
    ]
    return {
        "format": "billhook.latency_table/1",
        "device": f"billhook's engine, float32, one thread, {isas()[-1]}, {environment()['cpu']}",
        "basis": {
            "conditions": conditions,
            "layers": "ResNet-50, VGG-16 and MobileNetV2, 224 pixels; conv: also the large windows of "
            "AlexNet; of layers with more than 4 million weights, some outputs",
            "times": "measured: time with zeros over that of the same layer without, in the same engine, "
            "each in its fastest cut, with phases of strided windows; geometric mean over networks of the "
            "sum over layers; random weights, zeros as the pattern chooses them",
            "times, 0.1 to 0.4": "the line through 0.5 and 0.7, at most 1: then a dense layer runs",
            "times, at 1": "the line through the last two measured points",
            "times, kernel at 0.5": "interpolated: kernel patterns have at least 5 zeros of 9",
            "coarse": "measured with whole filters of zeros, which the engine leaves out",
            "macs_per_second": "measured: multiply-adds of all layers over their time, dense",
            "bytes_per_second": "measured: weights of the largest linear layers over their time, dense",
            "layer_seconds": "measured: 8 outputs of 8 inputs, 1x1, on 8 x 8 pixels",
        },
        "layer_seconds": float(f"{TimedLayers().latency(smallest, None, 0.0):.2g}"),
        "bytes_per_second": float(f"{np.median(large):.3g}"),
        "sparsity": [*SPARSITY, 1.0],
        "kinds": kinds,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=TABLE, help="file to write")
    parser.add_argument("--repeat", type=int, default=3, help="times that everything is timed")
    parser.add_argument("--note", default="", help="about the machine, for people")
    options = parser.parse_args()
    torch.set_num_threads(1)
    declare()
    networks = {name: layers_of(name) for name in (*NETWORKS, LARGE_WINDOWS)}
    conditions = f"one thread, batch 1; least of {options.repeat} times 7 runs in turns with other layers"
    conditions += f"; {options.note}" if options.note else ""
    data = table(networks, timed(networks, options.repeat), conditions)
    LatencyTable.from_dict(data)  # or it would not load
    write_json(options.out, data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
