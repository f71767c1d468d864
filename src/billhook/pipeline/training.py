"""Training inside a run: the original, or the smaller network with the original as its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from billhook.errors import VerifyError
from billhook.graph.structure import Structure
from billhook.pipeline.work import Work
from billhook.recipe import Training
from billhook.sparse.holding import holds
from billhook.train import evaluate, fit
from billhook.train.holding import HoldPatterns


def train_network(
    work: Work,
    model: nn.Module,
    section: Training,
    stage: str,
    *,
    teacher: nn.Module | None,
    lr: float | None = None,
    structures: Mapping[str, Structure] | None = None,
) -> dict[str, Any]:
    """Train `model` in place; continues at the step where an earlier process was interrupted.

    Args:
        work: The run.
        model: What to train.
        section: How.
        stage: Where its checkpoints go.
        teacher: Whose answers it learns from, if any.
        lr: Learning rate, where the section leaves it open.
        structures: What of its weights must stay zero or equal.
    Returns:
        History and duration as plain data, and whether the structures were held.
    Raises:
        VerifyError: if a weight has lost its structure.
    """
    assert work.recipe.data is not None
    batches = work.data.training(work.recipe.data.batch, seed=work.recipe.seed)
    checkpoints = work.directory.file(f"checkpoints/{stage}")
    fitted = fit(
        model,
        batches,
        config=section.to_config(work.recipe.seed, lr=lr),
        teacher=teacher,
        validate=lambda trained: {"accuracy": validate(work, trained)},
        callbacks=[HoldPatterns(structures)] if structures else (),
        checkpoint_dir=checkpoints,
        resume=True,
        progress=work.bars,
    )
    model.eval()
    leak = holds(model, structures) if structures else None
    if leak is not None:
        raise VerifyError(f"{leak!r} has lost its pattern in training; please report it")
    accuracy = fitted.metrics.get("accuracy")
    return {
        "history": [record.to_dict() for record in fitted.history],
        "steps": fitted.steps,
        "seconds": fitted.seconds,
        "precision": fitted.precision,
        "resumed_from": fitted.resumed_from,
        "accuracy": accuracy,
        **({"held": True} if structures else {}),
        "summary": f"{accuracy:.2%} on the validation split" if accuracy is not None else "",
    }


def validate(work: Work, model: nn.Module) -> float:
    """Return the accuracy on the validation split (its first `limit` images, if the recipe sets one)."""
    assert work.recipe.data is not None
    loader = work.data.evaluation("validation", limit=work.recipe.data.limit)
    return evaluate(model, loader).accuracy
