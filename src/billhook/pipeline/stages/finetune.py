"""Fine-tune the smaller network, with the original as its teacher."""

from __future__ import annotations

from typing import Any

from torch import nn

from billhook.pipeline.run_directory import storage_errors
from billhook.pipeline.training import train_network
from billhook.pipeline.work import Work
from billhook.recipe import Finetune, Training
from billhook.train import isometric_lr, mean_jsv

_WORDS = {"finetune": "fine-tuning", "settle": "training before zeros"}
SAMPLES = 16  # of which the Jacobian is taken, at most; a network of many classes gets fewer,
_PASSES = 2000  # because each class takes a backward pass of each sample


def run(work: Work) -> dict[str, Any]:
    """Return the history; writes the trained weights.

    Always begins at the pruned network, or at the last checkpoint of an interrupted run.
    """
    model = work.pruned()
    fitted = tuned(work, model, work.recipe.finetune, "finetune")
    work.keep_compressed(model)
    return fitted


def tuned(work: Work, model: nn.Module, section: Finetune, stage: str) -> dict[str, Any]:
    """Train a smaller network in place, with the original as its teacher, and return the history.

    Args:
        work: The run.
        model: What to train.
        section: How; with lr = "auto" by the damage that was done.
        stage: Where its checkpoints go.
    """
    chosen = _learning_rate(work, model, stage) if section.lr == "auto" else {}
    fitted = train_network(
        work,
        model,
        section,
        stage,
        teacher=work.original if section.distill else None,
        lr=chosen.get("chosen"),
        structures=work.plan.patterns,
    )
    if not chosen:
        return fitted
    before, after = (chosen[side]["mean"] for side in ("before", "after"))
    note = (
        f"the learning rate of {_WORDS[stage]} is {chosen['chosen']:g}, because pruning has taken the mean "
        f"singular value of the input-output Jacobian from {before:.3g} to {after:.3g}"
    )
    return {**fitted, "lr": chosen, "notes": [*fitted.get("notes", ()), note]}


def _learning_rate(work: Work, model: nn.Module, stage: str) -> dict[str, Any]:
    """Return the rate that suits the damage, and the singular values it follows from.

    An interrupted run keeps the rate it began with, whatever another machine would measure.
    """
    file = f"checkpoints/{stage}_learning_rate.json"
    if work.directory.file(file).is_file():
        kept: dict[str, Any] = work.directory.read_json(file)
        return kept
    count = min(max(2, min(SAMPLES, _PASSES // len(work.data.classes))), len(work.data.train))
    inputs, _ = work.data.calibration(count, seed=work.recipe.seed)
    before, after = mean_jsv(work.original, inputs), mean_jsv(model, inputs)
    low, high = (kind.model_fields["lr"].default for kind in (Finetune, Training))
    chosen = {
        "chosen": isometric_lr(before, after, low=low, high=high),
        "before": before.to_dict(),
        "after": after.to_dict(),
    }
    folder = work.directory.file(file).parent
    with storage_errors(folder):
        folder.mkdir(exist_ok=True)
    work.directory.write_json(file, chosen)
    return chosen
