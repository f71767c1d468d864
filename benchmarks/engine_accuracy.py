#!/usr/bin/env python3
"""A trained network end to end: accuracy of the compiled sparse network, and latency beside the dense one.

    python benchmarks/engine_accuracy.py           # writes benchmarks/results/engine_accuracy.jsonl
    python benchmarks/engine_accuracy.py --quick   # short training, short turns; writes nothing

Fashion-MNIST, ResNet-20 with a stem of stride 2. The dense network is that of `make bench-sparse`; it and the
sparse one are trained for six further epochs, alike, about two minutes each, and kept in .cache. Pattern,
share of zeros and method were picked on the validation images. The 10,000 test images are then scored by
PyTorch and by the runtime that is timed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks._sparse_run import FINE, Task, arguments, dense, sparse  # noqa: E402
from benchmarks._training import Protocol, batches, dataset, example, finetuning, untrained  # noqa: E402
from billhook.deploy import export  # noqa: E402
from billhook.graph.storage import load_tensors, read_tensors, write_tensors  # noqa: E402
from billhook.measure import Artifact, Timing, backends, profile  # noqa: E402
from billhook.measure.environment import environment  # noqa: E402
from billhook.train import fit  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "engine_accuracy.jsonl"
CACHE, DENSE = ROOT / ".cache" / "engine-accuracy", ROOT / ".cache" / "sparse"
SPARSE = Task("resnet-20", "accuracy", "4x1", "4x1", 0.85, "gradual", epochs=6)
RUNTIMES = ("onnxruntime", "openvino", "billhook")
AT_ONCE = 500  # images


def networks(protocol: Protocol, cache: Path, dense_cache: Path) -> dict[str, nn.Module]:
    """Return the dense and the sparse network after the same number of epochs; both are trained once."""
    name = f"{SPARSE.network}_{SPARSE.method}_{SPARSE.pattern}_{SPARSE.sparsity}_{SPARSE.epochs}"
    places = {
        "dense": cache / f"{SPARSE.network}_dense_{SPARSE.epochs}.safetensors",
        f"{SPARSE.pattern}, {SPARSE.sparsity:.0%} zeros": cache / f"{name}.safetensors",
    }
    made = {}
    for kind, path in places.items():
        if path.exists():
            model = untrained(SPARSE.network, arguments(SPARSE), SPARSE.seed)
            load_tensors(model, read_tensors(path), str(path))
        else:
            print(f"training: {kind}", file=sys.stderr, flush=True)
            dense_cache.mkdir(parents=True, exist_ok=True)
            model = dense(SPARSE, protocol, dense_cache)
            model = further(model, protocol) if kind == "dense" else sparse(SPARSE, model, protocol).network
            cache.mkdir(parents=True, exist_ok=True)
            write_tensors(path, model)
        made[kind] = model.eval()
    return made


def further(model: nn.Module, protocol: Protocol) -> nn.Module:
    """Train the dense network as much longer as the sparse one is."""
    config = finetuning(SPARSE.seed, protocol, epochs=SPARSE.epochs, lr=FINE)
    fit(model, batches(protocol, SPARSE.seed), config=config, progress=False)
    return model


def test_images() -> tuple[Tensor, npt.NDArray[np.int64]]:
    """Return all test images and their classes."""
    pairs = list(dataset().evaluation("test").epoch(0))
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]).numpy()


def by_torch(model: nn.Module, images: Tensor) -> npt.NDArray[np.float32]:
    """Return PyTorch's outputs."""
    with torch.no_grad():
        return torch.cat([model(x) for x in images.split(AT_ONCE)]).numpy()


def by_runtime(artifact: Artifact, images: Tensor) -> npt.NDArray[np.float32]:
    """Return the outputs of the runtime that is timed."""
    session = backends.get(artifact.manifest.backend).open(artifact)
    return np.concatenate([session.run([x.numpy()])[0] for x in images.split(AT_ONCE)])


def rows(made: dict[str, nn.Module], timing: Timing) -> list[dict[str, Any]]:
    """Return one row per network and runtime; everything is timed in one run."""
    images, targets = test_images()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        artifacts = []
        for kind, model in made.items():
            expected = by_torch(model, images)
            for runtime in RUNTIMES if kind == "dense" else RUNTIMES[-1:]:
                place = Path(folder) / f"{runtime}_{len(artifacts)}"
                artifacts.append(export(model, example(), place, backend=runtime))
                outputs = by_runtime(artifacts[-1], images)
                same = (outputs.argmax(1) == expected.argmax(1)).sum()
                found.append(
                    {
                        "weights": kind,
                        "runtime": runtime,
                        "right": int((outputs.argmax(1) == targets).sum()),
                        "right_by_pytorch": int((expected.argmax(1) == targets).sum()),
                        "same_classes": f"{same:,} of {len(targets):,}",
                        "error": f"{np.abs(outputs - expected).max() / np.abs(expected).max():.0e}",
                    }
                )
        times = [p.latency for p in profile(artifacts, timing)]
    base = times[0]  # the dense network in ONNX Runtime
    for row, time in zip(found, times, strict=True):
        points = 100 * (found[0]["right_by_pytorch"] - row["right"]) / len(targets)
        row["points_lost"] = f"{points:.2f}"
        row["latency"] = time.to_dict()
        row["speedup"] = round(base.value / time.value, 3)
        row["speedup_of_minima"] = round(
            base.conditions["fastest_run_s"] / time.conditions["fastest_run_s"], 3
        )
    return found


def main() -> int:
    """Train what is not trained yet, score, time, and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="short training and turns, writes nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            protocol = Protocol(dense_epochs=1, batches=20)
            made = networks(protocol, Path(folder), Path(folder))
            show(rows(made, Timing(rounds=3, seconds_per_round=0.1)))
        return 0
    found = rows(networks(Protocol(), CACHE, DENSE), Timing(rounds=9))
    show(found)
    place = environment()
    versions = ", ".join(f"{n} {place['versions'][n]}" for n in ("torch", *RUNTIMES[:2]))
    note = (
        f"{place['cpu']}, {place['os']}, {versions}. ResNet-20, Fashion-MNIST, seed 0; {SPARSE.method}, "
        f"{SPARSE.epochs} epochs for both networks; float32, one thread, batch 1, pinned, medians of rounds "
        "taken in turns, time on the core; speed-up over the dense network in ONNX Runtime."
    )
    RESULTS.write_text("".join(json.dumps(r) + "\n" for r in [*found, {"note": note}]))
    return 0


def show(found: list[dict[str, Any]]) -> None:
    """Print the rows."""
    for row in found:
        print(
            f"{row['weights']}, {row['runtime']}: {row['right']:,} right "
            f"(PyTorch {row['right_by_pytorch']:,}), {row['same_classes']} classes the same, "
            f"{row['points_lost']} points lost, {row['latency']['value'] * 1e6:.1f} us, "
            f"{row['speedup']:.2f} times as fast",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
