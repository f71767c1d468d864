"""Train the small checkpoints that come with billhook.

    python benchmarks/train_checkpoints.py                    # all of them
    python benchmarks/train_checkpoints.py resnet-20          # one of them
    python benchmarks/train_checkpoints.py --epochs 1 --folder trial

Writes `<model>_<data set>.safetensors` (half precision) and a JSON record of how it was made. Accuracy is
measured on the validation part, with the stored weights; the test part is not touched here.
"""

from __future__ import annotations

import argparse
import logging
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from billhook.data import load
from billhook.errors import BillhookError, NameNotFoundError
from billhook.models import build, save_checkpoint
from billhook.models._checkpoints import FOLDER
from billhook.results import Measurement
from billhook.train import FitConfig, evaluate, fit

log = logging.getLogger("billhook")


@dataclass(frozen=True)
class Task:
    """One network to train.

    Attributes:
        model: Name in the zoo.
        dataset: Name of the data set.
        arguments: Of the network's factory, without the data set's channels and classes.
        epochs: Passes over the training part.
        lr: Peak of the one-cycle schedule.
    """

    model: str
    dataset: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 4
    lr: float = 0.2


BATCH_SIZE = 128
SEED = 0
TASKS = (
    # Wider than the task needs, so that there is something to prune; all widths are multiples of 32, as
    # runtimes compute in blocks of 8 or 16 channels. Shortcuts are convolutions: more to decide.
    Task(
        "resnet-20", "fashion-mnist", {"channels": [32, 64, 96], "stem_stride": 2, "shortcut": "B"}, epochs=4
    ),
)


def train(task: Task, *, epochs: int | None, folder: Path, data_dir: Path | None) -> None:
    """Train one network and write its weights and its record."""
    data = load(task.dataset, data_dir)
    arguments = {
        **task.arguments,
        "in_channels": data.input_shape[0],
        "num_classes": len(data.classes),
    }
    torch.manual_seed(SEED)
    model = build(task.model, **arguments)
    config = FitConfig(epochs=epochs or task.epochs, lr=task.lr, seed=SEED)
    result = fit(
        model,
        data.training(BATCH_SIZE, seed=SEED),
        config=config,
        validate=data.evaluation("validation"),
        progress=True,
    )
    made_by = {
        "script": "benchmarks/train_checkpoints.py",
        "seed": SEED,
        "batch_size": BATCH_SIZE,
        "training_images": len(data.train),
        "config": asdict(config),
        "precision": result.precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "seconds": round(result.seconds, 1),
        "log": [record.to_dict() for record in result.history],
    }
    # Accuracy of what is stored: the weights rounded to half precision, computed in single precision.
    stored = build(task.model, **arguments)
    stored.load_state_dict({name: _rounded(tensor) for name, tensor in model.state_dict().items()})
    score = evaluate(stored, data.evaluation("validation"))
    accuracy = Measurement(
        value=score.accuracy,
        unit="1",
        conditions={
            "data set": task.dataset,
            "split": "validation",
            "images": score.samples,
            "precision": "weights in fp16, arithmetic in fp32",
        },
    )
    made = save_checkpoint(
        model,
        task.model,
        arguments,
        task.dataset,
        validation_accuracy=accuracy,
        made_by=made_by,
        folder=folder,
    )
    log.info("%s: validation accuracy %.4f, %d B", made.path, score.accuracy, made.path.stat().st_size)


def _rounded(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half().float() if tensor.is_floating_point() else tensor


def main() -> int:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", help="names; all if none is given")
    parser.add_argument("--epochs", type=int, help="instead of the number of each network")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files go")
    parser.add_argument("--data-dir", type=Path, help="where the data set lies")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    known = [task.model for task in TASKS]
    start = time.perf_counter()
    try:
        for name in options.models:
            if name not in known:
                raise NameNotFoundError("checkpoint", name, known)
        for task in TASKS:
            if not options.models or task.model in options.models:
                train(task, epochs=options.epochs, folder=options.folder, data_dir=options.data_dir)
    except BillhookError as error:
        log.error("%s", error)
        return error.exit_code
    log.info("done in %.0f s", time.perf_counter() - start)
    return 0


if __name__ == "__main__":
    sys.exit(main())
