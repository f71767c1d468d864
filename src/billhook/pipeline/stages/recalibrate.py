"""Measure batch-norm statistics anew where nothing is fine-tuned, and keep them if they help."""

from __future__ import annotations

import copy
from typing import Any

from billhook.pipeline.training import validate
from billhook.pipeline.work import Work
from billhook.train import recalibrate_batchnorm

STEPS = 20


def run(work: Work) -> dict[str, Any]:
    """Return the accuracy of the network that is kept; writes its weights if they changed."""
    assert work.recipe.data is not None
    before = (work.outcome("sparsify") or work.outcome("settle") or work.outcome("prune"))["accuracy"]
    model = copy.deepcopy(work.compressed)
    batches = work.data.training(work.recipe.data.batch, seed=work.recipe.seed, augment=False)
    read = recalibrate_batchnorm(model, batches, STEPS)
    after = validate(work, model) if read else before
    if not read or after <= before:
        return {"kept": False, "accuracy": before, "summary": "kept as they were"}
    work.keep_compressed(model)
    return {"kept": True, "accuracy": after, "summary": f"{after:.2%} on the validation split"}
