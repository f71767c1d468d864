#!/usr/bin/env python3
"""Accuracy of trained networks in 8 bits: the engine, and ONNX Runtime beside it.

    python benchmarks/engine_int8_accuracy.py           # writes benchmarks/results/engine_int8_accuracy.jsonl
    python benchmarks/engine_int8_accuracy.py --quick   # the checkpoint and digits alone; writes nothing

ResNet-20 with the weights that come with billhook; others are trained once, some minutes each, and kept in
.cache. Ranges are found on 512 training images by each of the three methods; the one with the best accuracy
in the engine on the validation images is chosen, and the test images are scored with that one only.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks._training import CALIBRATION, Protocol, dataset, scores, trained  # noqa: E402
from billhook import Calibration  # noqa: E402
from billhook.compile.int8.ranges import METHODS  # noqa: E402
from billhook.deploy import export  # noqa: E402
from billhook.measure import Artifact, accuracy  # noqa: E402
from billhook.measure.environment import environment  # noqa: E402
from billhook.models import checkpoint  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "engine_int8_accuracy.jsonl"
CACHE = ROOT / ".cache" / "int8"
ASKED = 0.5  # points that may be lost


@dataclass(frozen=True)
class Task:
    """A network to score.

    Attributes:
        network: Name in the zoo.
        data: Name of the data set.
        epochs: Of its training; 0 for the weights that come with billhook.
        arguments: Of the network.
        lr: Of the training.
    """

    network: str
    data: str = "fashion-mnist"
    epochs: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)
    lr: float = 0.2


TASKS = (
    Task("resnet-20"),
    Task("small-vgg", epochs=4),
    Task("lenet-5", epochs=4, lr=0.05),
    Task("mobilenet-v2", epochs=3, arguments={"width": 0.5, "stem_stride": 2}),
    Task("resnet-8", "digits", epochs=30),
    Task("small-vgg", "digits", epochs=30),
)
QUICK = tuple(task for task in TASKS if not task.epochs or task.data == "digits")


def network(task: Task, cache: Path) -> nn.Module:
    """Return the trained network."""
    if not task.epochs:
        found = checkpoint(task.network, task.data)
        assert found is not None
        return found.load().eval()
    cache.mkdir(parents=True, exist_ok=True)
    images = dataset(task.data)
    shape = {"in_channels": images.input_shape[0], "num_classes": len(images.classes)}
    return trained(
        task.network,
        {**shape, **task.arguments},
        0,
        Protocol(dense_epochs=task.epochs, precision="32-true"),
        cache,
        data=task.data,
        lr=task.lr,
    )


def scored(artifact: Artifact, data: str, split: str) -> float:
    """Return the accuracy in the runtime."""
    return accuracy(artifact, dataset(data).evaluation(split)).value


def row(task: Task, cache: Path) -> dict[str, Any]:
    """Return what a network scores in float32 and in 8 bits."""
    model, images = network(task, cache), dataset(task.data)
    before = scores(model, task.data)
    inputs, _ = images.calibration(min(CALIBRATION, len(images.train)), seed=0)
    with tempfile.TemporaryDirectory() as folder:

        def made(runtime: str, method: str) -> Artifact:
            calibration = Calibration(inputs.split(64), method)
            place = Path(folder) / f"{runtime}_{method}"
            return export(model, inputs[:1], place, backend=runtime, calibration=calibration)

        ours = {method: made("billhook", method) for method in METHODS}
        validation = {method: scored(a, task.data, "validation") for method, a in ours.items()}
        chosen = max(validation, key=validation.__getitem__)
        after = scored(ours[chosen], task.data, "test")
        theirs = scored(made("onnxruntime", chosen), task.data, "test")
        noise = (ours[chosen].manifest.parity or {})["sqnr"]
    points = {name: 100 * (before["test"] - value) for name, value in (("ours", after), ("theirs", theirs))}
    return {
        "network": task.network,
        "data": task.data,
        "float32": f"{before['test']:.2%}",
        "int8": f"{after:.2%}",
        "points_lost": f"{points['ours']:.2f}",
        "onnxruntime_int8": f"{theirs:.2%}",
        "onnxruntime_points_lost": f"{points['theirs']:.2f}",
        "method": chosen,
        "validation_float32": f"{before['validation']:.2%}",
        **{f"validation_{method}": f"{value:.2%}" for method, value in validation.items()},
        "sqnr_db": f"{noise:.1f}",
    }


def main() -> int:
    """Train what is not trained yet, score, and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="what needs no long training; writes nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for task in QUICK if options.quick else TASKS:
        found.append(row(task, CACHE))
        print(", ".join(f"{name} {value}" for name, value in found[-1].items()), flush=True)
    if options.quick:
        return 0
    place = environment()
    note = (
        f"{place['cpu']}, {place['os']}, torch {place['versions']['torch']}, ONNX Runtime "
        f"{place['versions']['onnxruntime']}. Calibrated on {CALIBRATION} training images; the method is "
        f"that with the best accuracy on the validation images; at most {ASKED} points may be lost."
    )
    RESULTS.write_text("".join(json.dumps(r) + "\n" for r in [*found, {"note": note}]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
